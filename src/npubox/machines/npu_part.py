# SPDX-License-Identifier: Apache-2.0
"""An Ethos-U NPU with mainline's driver, powered up in this process."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

from npubox.bus.virtual import AddressSpace, InterruptLine, VirtualPort
from npubox.devices.ethosu_npu.configuration import CONFIGURATIONS
from npubox.devices.ethosu_npu.npu import VirtualNpu
from npubox.devices.ethosu_npu.run import Injection
from npubox.machines.control import OperationOutput
from npubox.machines.npu import NpuPreset
from npubox.machines.npu_driver import DrivenNpu, plug_sram
from npubox.machines.part import Board

PATIENCE = 5_000_000  # ns of host time that a job may wait for a thread that is expected to carry it


class NpuPart(DrivenNpu):
    """A `Part`: NPU and driver in this process."""

    processes: frozenset[int] = frozenset()

    def __init__(self, preset: NpuPreset, board: Board) -> None:
        super().__init__(preset, board)
        self._dma = AddressSpace()
        self.sram = plug_sram(preset, self._dma.map)
        line = InterruptLine()
        self.npu = VirtualNpu(
            CONFIGURATIONS[preset.accelerator],
            self._dma,
            board.clock,
            line,
            preset.frequency,
            self.control,
            PATIENCE,
        )
        self.probe(VirtualPort(self.npu, self._dma, board.clock, line, self.npu.lend), self.sram)

    def inject(self, injection: Injection) -> None:
        """Order a fault of the next job: part of the control channel."""
        self.npu.inject(injection)

    def watch(self, watcher: Callable[[OperationOutput], None] | None) -> None:
        """Have `watcher` called, on the NPU's thread, with what each operation writes, in order; None
        ends it. What it raises fails the job. Part of the control channel."""
        self.npu.watch(
            None if watcher is None else functools.partial(self.control.operation_finished, watcher)
        )

    def close(self) -> None:
        self.npu.close()
        self.device.unplug()
        if self.sram is not None:
            self._dma.unmap(self.sram.address, self.sram.size)
            os.close(self.sram.fd)
