# SPDX-License-Identifier: Apache-2.0
"""The process of a served machine's device: `python -m npubox.machines.device_process PRESET FD`.

It ends when the other end of the socket does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from dataclasses import asdict
from typing import Any

from npubox.bus.host import DeviceHost
from npubox.bus.virtual import AddressSpace, InterruptLine
from npubox.devices import kernel_cache
from npubox.devices.ethosu_npu.configuration import CONFIGURATIONS
from npubox.devices.ethosu_npu.faults import Fault, RunReport
from npubox.devices.ethosu_npu.npu import Injection, VirtualNpu
from npubox.machines.preset import find_preset

NICENESS = 5  # the programs' own work goes first


class Reporter:
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


def main(preset_name: str, fd: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    kernel_cache.mark_complete()
    preset = find_preset(preset_name)
    host = DeviceHost(socket.socket(fileno=fd))
    dma = AddressSpace()
    line = InterruptLine()
    line.connect(0, host.interrupt)
    npu = VirtualNpu(
        CONFIGURATIONS[preset.accelerator], dma, host.clock, line, preset.npu.frequency, Reporter(host)
    )
    host.run(npu, dma, lambda order: npu.inject(Injection(order.decode())))
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
