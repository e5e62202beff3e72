# SPDX-License-Identifier: Apache-2.0
"""A machine whose device runs in a process of its own, so that a busy NPU does not slow down ioctls."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
from contextlib import suppress

from npubox.bus.port import MemoryPool, PlatformDevice, Prot
from npubox.bus.remote import RemoteLink, RemotePort
from npubox.bus.wire import Kind, pack
from npubox.core.drm.device import DrmDevice
from npubox.devices.ethosu_npu.faults import Fault, RunReport
from npubox.drivers.accel.ethosu.drv import probe
from npubox.hw.ethosu.registers import Status
from npubox.machines.control import Control
from npubox.machines.policy import driver_policy
from npubox.machines.preset import PresetInfo

_log = logging.getLogger(__name__)


class SplitMachine:
    """A powered-up machine: driver and control channel here, the NPU in process `device_pid`.

    When that process dies the node answers ENODEV from then on. Raises DeviceError as `Machine` does,
    OSError where the process does not come up.
    """

    def __init__(self, preset: PresetInfo) -> None:
        npu = preset.npu
        policy = driver_policy(preset)
        self.control = Control()
        self._lost = False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.device_pid = _spawn(preset.name, theirs)
        self._link = RemoteLink(ours, self._hear)
        port = RemotePort(self._link)
        self._sram = _plug_sram(preset, port)
        try:
            self.device: DrmDevice = probe(
                PlatformDevice(
                    name=npu.name,
                    port=port,
                    dma_start=preset.dram.address,
                    dma_end=preset.dram.address + preset.dram.size,
                    compatible=npu.compatible,
                    sram=self._sram,
                ),
                policy,
            )
        except BaseException:
            self._end_process()
            raise
        self.device.queue_observer = self.control.job_event
        self._link.on_lost(self._device_lost)

    def inject(self, injection: str) -> None:
        """Order a fault of the next job, by the value of an `Injection`."""
        self._link.post(pack(Kind.ORDER, data=injection.encode()))

    def close(self) -> None:
        """Power down: jobs in progress are abandoned, open files answer ENODEV."""
        self._end_process()
        self.device.unplug()
        if self._sram is not None:
            os.close(self._sram.fd)

    def _end_process(self) -> None:
        self._link.close()
        with suppress(ProcessLookupError):
            os.kill(self.device_pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.device_pid, 0)

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


def _fault(fields: dict[str, object]) -> Fault:
    status = fields.pop("status")
    assert isinstance(status, int)
    return Fault(status=Status(status), **fields)  # type: ignore[arg-type]


def _spawn(preset: str, channel: socket.socket) -> int:
    os.set_inheritable(channel.fileno(), True)
    # -P: no module of the program's directory may stand in for one of ours.
    command = [sys.executable, "-P", "-m", "npubox.machines.device_process", preset, str(channel.fileno())]
    return os.posix_spawn(sys.executable, command, os.environ)


def _plug_sram(preset: PresetInfo, port: RemotePort) -> MemoryPool | None:
    if preset.sram is None:
        return None
    fd = os.memfd_create("npubox-sram", os.MFD_CLOEXEC)
    os.ftruncate(fd, preset.sram.size)
    port.dma.map(preset.sram.address, fd, 0, preset.sram.size, Prot.READ | Prot.WRITE)
    return MemoryPool(preset.sram.address, fd, 0, preset.sram.size)
