# SPDX-License-Identifier: Apache-2.0
"""An Ethos-U NPU in a process of its own, so that a busy NPU does not slow down ioctls: the driver's end."""

from __future__ import annotations

import json
import logging
import os

from npubox.devices.ethosu_npu.faults import Fault, RunReport
from npubox.hw.ethosu.registers import Status
from npubox.machines.device_link import DeviceLink
from npubox.machines.npu import NpuPreset
from npubox.machines.npu_driver import DrivenNpu, plug_sram
from npubox.machines.part import Board, Spawn

_log = logging.getLogger(__name__)


class SplitNpuPart(DrivenNpu):
    """A `Part`: driver and control channel here, the NPU in process `device_pid`. When that process dies the
    node answers ENODEV from then on. Raises OSError where the process does not come up."""

    def __init__(self, preset: NpuPreset, board: Board, spawn: Spawn) -> None:
        super().__init__(preset, board)
        self._link = DeviceLink(spawn, self._hear)
        self.device_pid = self._link.pid
        self.processes = frozenset({self.device_pid})
        self._sram = plug_sram(preset, self._link.port.dma.map)
        try:
            self.probe(self._link.port, self._sram)
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


def _fault(fields: dict[str, object]) -> Fault:
    status = fields.pop("status")
    assert isinstance(status, int)
    return Fault(status=Status(status), **fields)  # type: ignore[arg-type]
