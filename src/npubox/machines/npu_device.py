# SPDX-License-Identifier: Apache-2.0
"""An Ethos-U NPU in a process of its own: the device's end."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict
from typing import Any

from npubox.bus.host import DeviceHost
from npubox.bus.virtual import AddressSpace, InterruptLine
from npubox.devices import kernel_cache
from npubox.devices.ethosu_npu.configuration import CONFIGURATIONS
from npubox.devices.ethosu_npu.faults import Fault, RunReport
from npubox.devices.ethosu_npu.npu import VirtualNpu
from npubox.devices.ethosu_npu.run import Injection
from npubox.machines.npu import NpuPreset


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
