# SPDX-License-Identifier: Apache-2.0
"""How a subsystem is built, and what its firmware was compiled with."""

from __future__ import annotations

from dataclasses import dataclass

from npubox.devices.ethosu_npu.configuration import Configuration


@dataclass(frozen=True)
class Range:
    """Memory at a subsystem address, in bytes."""

    address: int
    size: int


@dataclass(frozen=True)
class SubsystemConfiguration:
    """`npus` identical NPUs at `frequency` Hz behind one Cortex-M. Addresses are the subsystem's.

    The rings are where the firmware was linked to look for them, header included; `short_header` is that of
    NXP's copy (facts, ethosu-linux.md §2.1). `arena` is divided among the NPUs, so is `fast_memory`, the SRAM
    for region 2, where there is some. `networks` are the .tflite files linked into the firmware, in its flash
    at `flash`. `waiting` is how many inferences its FIFO holds.
    """

    name: str
    npu: Configuration
    npus: int
    frequency: int
    in_queue: Range
    out_queue: Range
    arena: Range
    fast_memory: Range | None = None
    flash: int = 0
    networks: tuple[bytes, ...] = ()
    waiting: int = 64
    short_header: bool = False

    def arena_of(self, npu: int) -> Range:
        return self._share(self.arena, npu)

    def fast_memory_of(self, npu: int) -> Range | None:
        return None if self.fast_memory is None else self._share(self.fast_memory, npu)

    def _share(self, whole: Range, npu: int) -> Range:
        size = whole.size // self.npus & ~0xFFF
        return Range(whole.address + npu * size, size)
