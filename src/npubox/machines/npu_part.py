# SPDX-License-Identifier: Apache-2.0
"""An Ethos-U NPU with mainline's driver, powered up: in this process, or with the NPU in one of its own, so
that a busy NPU does not slow down ioctls."""

from __future__ import annotations

import functools
import json
import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from npubox.bus.host import DeviceHost
from npubox.bus.port import MemoryPool, PlatformDevice, Port, Prot
from npubox.bus.virtual import AddressSpace, InterruptLine, VirtualPort
from npubox.core.caller import Caller
from npubox.core.drm.device import DrmDevice
from npubox.core.drm.open_file import DrmOpenFile
from npubox.core.nodes import NodeInfo
from npubox.devices import kernel_cache
from npubox.devices.ethosu_npu.configuration import CONFIGURATIONS
from npubox.devices.ethosu_npu.faults import Fault, RunReport
from npubox.devices.ethosu_npu.npu import VirtualNpu
from npubox.devices.ethosu_npu.run import Injection
from npubox.drivers.accel.ethosu.drv import probe
from npubox.hw.ethosu.registers import Status
from npubox.machines.control import Control, OperationOutput
from npubox.machines.device_link import DeviceLink
from npubox.machines.npu import NpuPreset
from npubox.machines.part import Board, JobWatcher, Spawn
from npubox.machines.policy import driver_policy

PATIENCE = 5_000_000  # ns of host time that a job may wait for a thread that is expected to carry it

_log = logging.getLogger(__name__)


class _Driven:
    """The driver's side, whichever way its port goes."""

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

    def _probe(self, port: Port, sram: MemoryPool | None) -> None:
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


class NpuPart(_Driven):
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
        self._probe(VirtualPort(self.npu, self._dma, board.clock, line, self.npu.lend), self.sram)

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


class SplitNpuPart(_Driven):
    """A `Part`: driver and control channel here, the NPU in process `device_pid`. When that process dies the
    node answers ENODEV from then on. Raises OSError where the process does not come up."""

    def __init__(self, preset: NpuPreset, board: Board, spawn: Spawn) -> None:
        super().__init__(preset, board)
        self._link = DeviceLink(spawn, self._hear)
        self.device_pid = self._link.pid
        self.processes = frozenset({self.device_pid})
        self._sram = plug_sram(preset, self._link.port.dma.map)
        try:
            self._probe(self._link.port, self._sram)
        except BaseException:
            self._link.end()
            raise
        self._link.on_lost(self._device_lost)

    def inject(self, injection: str) -> None:
        """Order a fault of the next job, by the value of an `Injection`."""
        self._link.order(injection)

    def close(self) -> None:
        self._link.end()
        self.device.unplug()
        if self._sram is not None:
            os.close(self._sram.fd)

    def _device_lost(self) -> None:
        _log.error("the process of %s died: its node answers ENODEV from now on", self.device.name)
        self.device.unplug()

    def _hear(self, data: bytes) -> None:
        report = json.loads(data)
        match report.pop("run"):
            case "started":
                self.control.run_started()
            case "ignored":
                self.control.run_ignored(_fault(report))
            case "finished":
                fault = report.pop("fault")
                self.control.run_finished(RunReport(**report, fault=_fault(fault) if fault else None))


def run_npu(preset: NpuPreset, channel: socket.socket) -> None:
    """The NPU's own process: serve it until the driver's end of `channel` closes."""
    kernel_cache.mark_complete()
    host = DeviceHost(channel)
    dma = AddressSpace()
    line = InterruptLine()
    line.connect(0, host.interrupt)
    configuration = CONFIGURATIONS[preset.accelerator]
    npu = VirtualNpu(configuration, dma, host.clock, line, preset.frequency, _Reporter(host))
    host.run(npu, dma, lambda order: npu.inject(Injection(order.decode())))


class _Reporter:
    """Tells the control channel in the driver's process of runs."""

    def __init__(self, host: DeviceHost) -> None:
        self._host = host

    def run_started(self) -> None:
        self._tell("started", {})

    def run_ignored(self, fault: Fault) -> None:
        self._tell("ignored", asdict(fault))

    def run_finished(self, report: RunReport) -> None:
        self._tell("finished", asdict(report))

    def _tell(self, what: str, fields: dict[str, Any]) -> None:
        self._host.report(json.dumps({"run": what, **fields}).encode())


def _fault(fields: dict[str, object]) -> Fault:
    status = fields.pop("status")
    assert isinstance(status, int)
    return Fault(status=Status(status), **fields)  # type: ignore[arg-type]


def plug_sram(preset: NpuPreset, map_: Callable[[int, int, int, int, Prot], None]) -> MemoryPool | None:
    """The machine's on-chip SRAM, if it has some, mapped for the NPU."""
    if preset.sram is None:
        return None
    fd = os.memfd_create("npubox-sram", os.MFD_CLOEXEC)
    os.ftruncate(fd, preset.sram.size)
    map_(preset.sram.address, fd, 0, preset.sram.size, Prot.READ | Prot.WRITE)
    return MemoryPool(preset.sram.address, fd, 0, preset.sram.size)
