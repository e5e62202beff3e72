# SPDX-License-Identifier: Apache-2.0
"""The device's half of a `[[subsystem]]`: its hardware, in this process or in one of its own."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict

from npubox.bus.host import DeviceHost
from npubox.bus.incoherent import IncoherentSpace
from npubox.bus.virtual import AddressSpace, InterruptLine, VirtualClock, VirtualPort
from npubox.devices import kernel_cache
from npubox.devices.ethosu_npu.configuration import CONFIGURATIONS
from npubox.devices.ethosu_subsystem.configuration import Range, SubsystemConfiguration
from npubox.devices.ethosu_subsystem.faults import InferenceReport, SubsystemInjection
from npubox.devices.ethosu_subsystem.subsystem import InferenceObserver, VirtualSubsystem
from npubox.machines.subsystem import SubsystemPreset
from npubox.machines.subsystem_platform import device_range


class LocalSubsystem:
    """The hardware in this process, with `port` for its driver."""

    def __init__(self, preset: SubsystemPreset, clock: VirtualClock, observer: InferenceObserver) -> None:
        dma = _space(preset)
        line = InterruptLine()
        self.subsystem = VirtualSubsystem(device_configuration(preset), dma, clock, line, observer)
        self.port = VirtualPort(self.subsystem, dma, clock, line)


def run_subsystem(preset: SubsystemPreset, channel: socket.socket) -> None:
    """The hardware's own process: serve it until the driver's end of `channel` closes."""
    kernel_cache.mark_complete()
    host = DeviceHost(channel)
    dma = _space(preset)
    line = InterruptLine()
    line.connect(0, host.interrupt)
    subsystem = VirtualSubsystem(device_configuration(preset), dma, host.clock, line, _Reporter(host))
    host.run(subsystem, dma, lambda order: subsystem.inject(SubsystemInjection(order.decode())))


class _Reporter:
    """Tells the control channel in the driver's process of inferences."""

    def __init__(self, host: DeviceHost) -> None:
        self._host = host

    def inference_finished(self, report: InferenceReport) -> None:
        self._host.report(json.dumps(asdict(report)).encode())


def device_configuration(preset: SubsystemPreset) -> SubsystemConfiguration:
    """The subsystem that a preset describes. The rings are where the driver's addresses translate to."""
    return SubsystemConfiguration(
        name=preset.name,
        npu=CONFIGURATIONS[preset.accelerator],
        npus=preset.npus,
        frequency=preset.frequency,
        in_queue=device_range(preset, preset.reg["in_queue"]),
        out_queue=device_range(preset, preset.reg["out_queue"]),
        arena=Range(preset.arena.address, preset.arena.size),
        fast_memory=None
        if preset.fast_memory is None
        else Range(preset.fast_memory.address, preset.fast_memory.size),
        flash=preset.flash,
        networks=preset.network_files(),
        short_header=preset.short_header,
    )


def _space(preset: SubsystemPreset) -> AddressSpace:
    return IncoherentSpace() if preset.incoherent else AddressSpace()
