# SPDX-License-Identifier: Apache-2.0
"""The driver's side of an Ethos-U behind mainline's driver, whichever way its port goes. It loads no
kernels."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from npubox.bus.port import MemoryPool, PlatformDevice, Port, Prot
from npubox.core.caller import Caller
from npubox.core.drm.device import DrmDevice
from npubox.core.drm.open_file import DrmOpenFile
from npubox.core.nodes import NodeInfo
from npubox.drivers.accel.ethosu.drv import probe
from npubox.machines.control import Control
from npubox.machines.npu import NpuPreset
from npubox.machines.part import Board, JobWatcher
from npubox.machines.policy import driver_policy


class DrivenNpu:
    """What is common to `Part`s with this driver."""

    device: DrmDevice

    def __init__(self, preset: NpuPreset, board: Board) -> None:
        self._preset = preset
        self._policy = driver_policy(preset, board)
        self.control = Control()
        self.job_watcher: JobWatcher | None = None

    @property
    def nodes(self) -> Sequence[NodeInfo]:
        return self._preset.nodes

    def open(self, node: NodeInfo, flags: int, caller: Caller) -> DrmOpenFile:
        return DrmOpenFile(self.device, flags, caller)

    def probe(self, port: Port, sram: MemoryPool | None) -> None:
        preset = self._preset
        self.device = probe(
            PlatformDevice(
                name=preset.name,
                port=port,
                dma_start=preset.dram.address,
                dma_end=preset.dram.address + preset.dram.size,
                compatible=preset.compatible,
                sram=sram,
            ),
            self._policy,
        )
        self.device.queue_observer = self._job_event

    def _job_event(self, client_id: int, sequence: int, event: str, error: int) -> None:
        self.control.job_event(client_id, sequence, event, error)
        if event == "finished" and self.job_watcher is not None:
            self.job_watcher(client_id, sequence, error, self.control.job(client_id, sequence))


def plug_sram(preset: NpuPreset, map_: Callable[[int, int, int, int, Prot], None]) -> MemoryPool | None:
    """The machine's on-chip SRAM, if it has some, mapped for the NPU."""
    if preset.sram is None:
        return None
    fd = os.memfd_create("npubox-sram", os.MFD_CLOEXEC)
    os.ftruncate(fd, preset.sram.size)
    map_(preset.sram.address, fd, 0, preset.sram.size, Prot.READ | Prot.WRITE)
    return MemoryPool(preset.sram.address, fd, 0, preset.sram.size)
