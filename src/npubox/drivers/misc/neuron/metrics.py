# SPDX-License-Identifier: Apache-2.0
"""What a device counts for sysfs: memory by category, resets, inferences (facts, neuron.md §2, §11.2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from npubox.drivers.misc.neuron.memory import Chunk
from npubox.hw.neuron.address import CORES
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


STATUSES = {
    "success": 1,
    "failure": 16,
    "timeout": 4,
    "exec_bad_input": 5,
    "hw_error": 11,
    "execute_completed_with_error": 2,
    "execute_completed_with_num_error": 3,
    "generic_error": 7,
    "resource_error": 17,
    "resource_nc_error": 18,
    "execute_failed_to_queue": 6,
    "invalid_error": 19,
    "unsupported_neff_version": 20,
    "oob_error": 30,
    "hw_collectives_error": 31,
    "hw_hbm_ue_error": 32,
    "hw_nc_ue_error": 33,
    "hw_dma_abort_error": 34,
    "execute_sw_nq_overflow": 35,
    "execute_sw_semaphore_error": 36,
    "execute_sw_event_error": 37,
    "execute_sw_psum_collision": 38,
    "execute_sw_sequencer_fatal": 39,
    "hw_repairable_hbm_ue_error": 40,
}
OTHER = {
    "model_load_count": 27,
    "reset_req_count": None,
    "reset_fail_count": None,
    "inference_count": 28,
    "flop_count": 29,
    "nc_time_in_use": 0,
}
"""Each file's counter in a core's part of a datastore (facts, neuron.md §11.2), by the likeness of their
names; None where the driver counts itself."""
FLOPS_PER_MAC = 2
CORE_COUNTERS, CORE_COUNTERS_SIZE = 0x100, 31
EXTENDED_COUNTERS, EXTENDED_COUNTERS_SIZE = 0xDA80, 64


@dataclass
class Usage:
    """A sum, its last change, its highest."""

    total: int = 0
    present: int = 0
    peak: int = 0

    def add(self, change: int) -> None:
        self.total += change
        self.present = abs(change)
        self.peak = max(self.peak, self.total)


class Metrics:
    """What one device counts, by the directory in sysfs that shows it. `changed` is set by every change."""

    def __init__(self) -> None:
        self.usages: dict[str, Usage] = {}
        self.changed = False
        self.notify_delay = "-1"

    def add(self, directory: str, change: int) -> None:
        self.usages.setdefault(directory, Usage()).add(change)
        self.changed = True

    def count_memory(self, chunk: Chunk, sign: int) -> None:
        """Memory was allocated (+1) or freed (-1)."""
        change = sign * chunk.size
        categories = HOST_CATEGORIES if chunk.host else DEVICE_CATEGORIES
        name = next((name for name, kinds in categories.items() if chunk.mem_type in kinds), UNCATEGORIZED)
        core = f"neuron_core{chunk.core}/stats/memory_usage"
        if chunk.host:
            self.add(f"stats/memory_usage/host_mem/{name}", change)
            self.add(f"{core}/host_mem", change)
        else:
            self.add(f"{core}/device_mem/{name}", change)
            self.add(f"{core}/device_mem", change)

    def count_reset(self, cores: Iterable[int], name: str) -> None:
        """`reset_req_count` or `reset_fail_count`, by one."""
        for core in cores:
            self.add(f"neuron_core{core}/stats/other_info/{name}", 1)

    def fold(self, datastore: bytes) -> None:
        """Take a process's own counters over, as it gives its datastore back."""
        for core in range(CORES):
            for kind, counters in (("status", STATUSES), ("other_info", OTHER)):
                for name, number in counters.items():
                    value = 0 if number is None else _counter(datastore, core, number)
                    if value:
                        factor = FLOPS_PER_MAC if name == "flop_count" else 1
                        self.add(f"neuron_core{core}/stats/{kind}/{name}", value * factor)


def _counter(datastore: bytes, core: int, number: int) -> int:
    if number < CORE_COUNTERS_SIZE:
        at = CORE_COUNTERS + 8 * (core * CORE_COUNTERS_SIZE + number)
    else:
        at = EXTENDED_COUNTERS + 8 * (core * EXTENDED_COUNTERS_SIZE + number - CORE_COUNTERS_SIZE)
    return int.from_bytes(datastore[at : at + 8], "little")
