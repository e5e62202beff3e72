# SPDX-License-Identifier: Apache-2.0
"""The builder: plugs a preset's devices into a bus and binds their drivers."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass

from npubox.bus.port import MemoryPool, PlatformDevice, Prot
from npubox.bus.virtual import AddressSpace, InterruptLine, VirtualClock, VirtualPort
from npubox.core.node import Node
from npubox.devices.ethosu_npu.configuration import CONFIGURATIONS
from npubox.devices.ethosu_npu.npu import Injection, VirtualNpu
from npubox.drivers.accel.ethosu.drv import probe
from npubox.errors import DeviceError
from npubox.machines.control import Control, OperationOutput
from npubox.machines.policy import driver_policy
from npubox.machines.preset import PresetInfo


@dataclass(frozen=True)
class MachineInfo:
    """What a client compiles for; `policy` is the driver's: "mainline" or "hardware"."""

    name: str
    accelerator: str
    vela_system_config: str | None
    vela_memory_mode: str | None
    policy: str


class Machine:
    """A powered-up virtual machine with one Ethos-U NPU. `close` powers it down."""

    def __init__(self, preset: PresetInfo) -> None:
        """Raises DeviceError where the driver, with the preset's policy, does not drive its NPU."""
        npu = preset.npu
        policy = driver_policy(preset)
        self.info = MachineInfo(
            preset.name, npu.accelerator, npu.vela_system_config, npu.vela_memory_mode, preset.policy
        )
        self.control = Control()
        self.clock = VirtualClock()
        self._path = npu.node
        self._dma = AddressSpace()
        self.sram = self._plug_sram(preset)
        line = InterruptLine()
        self.npu = VirtualNpu(
            CONFIGURATIONS[npu.accelerator], self._dma, self.clock, line, npu.frequency, self.control
        )
        port = VirtualPort(self.npu, self._dma, self.clock, line)
        platform = PlatformDevice(
            name=npu.name,
            port=port,
            dma_start=preset.dram.address,
            dma_end=preset.dram.address + preset.dram.size,
            compatible=npu.compatible,
            sram=self.sram,
        )
        self._device = probe(platform, policy)
        self._device.queue_observer = self.control.job_event
        self._closed = False

    def open_node(self, path: str | None = None, flags: int = os.O_RDWR) -> Node:
        """Open a device node of this machine, as open(2) would. Raises DeviceError, OSError."""
        if path is not None and path != self._path:
            raise DeviceError(f"machine {self.info.name} has no node {path}: it has {self._path}")
        return Node.open(self._device, flags)

    def inject(self, injection: Injection) -> None:
        """Order a fault of the next job: part of the control channel."""
        self.npu.inject(injection)

    def watch(self, watcher: Callable[[OperationOutput], None] | None) -> None:
        """Have `watcher` called, on the NPU's thread, with what each operation writes, in order; None
        ends it. What it raises fails the job. Part of the control channel."""
        self.npu.tap = (
            None if watcher is None else functools.partial(self.control.operation_finished, watcher)
        )

    def close(self) -> None:
        """Power down. Open nodes answer ENODEV from then on; a job in progress is abandoned."""
        if self._closed:
            return
        self._closed = True
        self.npu.close()
        self._device.unplug()
        self.clock.close()
        if self.sram is not None:
            self._dma.unmap(self.sram.address, self.sram.size)
            os.close(self.sram.fd)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _plug_sram(self, preset: PresetInfo) -> MemoryPool | None:
        if preset.sram is None:
            return None
        fd = os.memfd_create("npubox-sram", os.MFD_CLOEXEC)
        os.ftruncate(fd, preset.sram.size)
        self._dma.map(preset.sram.address, fd, 0, preset.sram.size, Prot.READ | Prot.WRITE)
        return MemoryPool(preset.sram.address, fd, 0, preset.sram.size)
