# SPDX-License-Identifier: Apache-2.0
"""What a device counts for sysfs: memory by category, resets (facts, neuron.md §2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from npubox.drivers.misc.neuron.memory import Chunk
from npubox.uapi.neuron import MemType

HOST_CATEGORIES = {
    "dma_buffers": (),
    "tensors": (MemType.TENSORS_HOST,),
    "constants": (MemType.CONSTANTS_HOST,),
    "application_memory": (MemType.CODE_HOST, MemType.MISC_HOST),
    "driver_memory": (MemType.NCDEV_HOST,),
    "notifications": (MemType.NOTIFICATION_HOST,),
    "dma_rings": (MemType.DMA_RINGS_HOST,),
}
DEVICE_CATEGORIES = {
    "model_code": (MemType.CODE_DEV,),
    "tensors": (MemType.TENSORS_DEV,),
    "constants": (MemType.CONSTANTS_DEV,),
    "model_shared_scratchpad": (MemType.SCRATCHPAD_DEV, MemType.CONTIGUOUS_SCRATCHPAD_DEV),
    "runtime_memory": (MemType.MISC_DEV,),
    "driver_memory": (MemType.NCDEV_DEV,),
    "collectives": (MemType.COLLECTIVES_DEV,),
    "nonshared_scratchpad": (MemType.SCRATCHPAD_NONSHARED_DEV,),
    "notifications": (MemType.NOTIFICATION_DEV,),
    "dma_rings": (MemType.DMA_RINGS_DEV,),
}
"""Which kinds of memory each category counts; the facts do not say for `dma_buffers`. What is in none is
`uncategorized`. The assignment of application and runtime memory is ours."""
UNCATEGORIZED = "uncategorized"


@dataclass
class Usage:
    """Bytes of memory now, at the last change and at most."""

    total: int = 0
    present: int = 0
    peak: int = 0

    def add(self, change: int) -> None:
        self.total += change
        self.present = abs(change)
        self.peak = max(self.peak, self.total)

    def files(self, directory: str) -> dict[str, str]:
        return {f"{directory}/{name}": f"{getattr(self, name)}\n" for name in ("total", "present", "peak")}


@dataclass
class Metrics:
    """What a device counts. Memory by (core or None for the device, category)."""

    host: dict[str, Usage] = field(default_factory=dict)
    cores: dict[tuple[int, bool, str], Usage] = field(default_factory=dict)
    resets: dict[int, int] = field(default_factory=dict)
    failed_resets: dict[int, int] = field(default_factory=dict)

    def count(self, chunk: Chunk, sign: int) -> None:
        """Memory was allocated (+1) or freed (-1)."""
        change = sign * chunk.size
        categories = HOST_CATEGORIES if chunk.host else DEVICE_CATEGORIES
        name = next((name for name, kinds in categories.items() if chunk.mem_type in kinds), UNCATEGORIZED)
        if chunk.host:
            self.host.setdefault(name, Usage()).add(change)
        else:
            self.cores.setdefault((chunk.core, False, name), Usage()).add(change)
        self.cores.setdefault((chunk.core, chunk.host, ""), Usage()).add(change)

    def count_reset(self, cores: Iterable[int], *, failed: bool) -> None:
        counts = self.failed_resets if failed else self.resets
        for core in cores:
            counts[core] = counts.get(core, 0) + 1
