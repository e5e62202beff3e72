# SPDX-License-Identifier: Apache-2.0
"""What the driver of a `[[subsystem]]` needs of its hardware, wherever that runs. No device is loaded."""

from __future__ import annotations

import json
import os
from typing import Any

from npubox.bus.port import MemoryPool, PlatformDevice, Port, Prot, device_address
from npubox.devices.ethosu_npu.faults import Fault
from npubox.devices.ethosu_subsystem.configuration import Range
from npubox.devices.ethosu_subsystem.faults import InferenceReport
from npubox.hw.ethosu.core_interface import CoreStatus
from npubox.hw.ethosu.registers import Status
from npubox.machines.subsystem import Extent, SubsystemPreset


class Queues:
    """The memory of the two rings, mapped for the subsystem, and `platform` with it for the driver. `close`
    when both are done."""

    def __init__(self, preset: SubsystemPreset, port: Port) -> None:
        self._pools: dict[str, MemoryPool] = {}
        for name, place in preset.reg.items():
            fd = os.memfd_create(f"npubox-{name}", os.MFD_CLOEXEC)
            self._pools[name] = MemoryPool(place.address, fd, 0, place.size)
            os.ftruncate(fd, place.size)
            address = device_range(preset, place).address
            port.dma.map(address, fd, 0, place.size, Prot.READ | Prot.WRITE)
        region = preset.memory_region
        self.platform = PlatformDevice(
            name=preset.name,
            port=port,
            dma_start=region.address,
            dma_end=region.address + region.size,
            compatible=preset.compatible,
            memory=self._pools,
            dma_ranges=preset.dma_ranges,
        )

    def close(self) -> None:
        for pool in self._pools.values():
            os.close(pool.fd)


def read_report(data: bytes) -> InferenceReport:
    """What `run_subsystem` reports over its channel."""
    fields: dict[str, Any] = json.loads(data)
    fault = fields.pop("fault")
    if fault is not None:
        fault = Fault(status=Status(fault.pop("status")), **fault)
    return InferenceReport(status=CoreStatus(fields.pop("status")), fault=fault, **fields)


def device_range(preset: SubsystemPreset, place: Extent) -> Range:
    """Where the subsystem sees what the CPU has at `place`."""
    return Range(device_address(preset.dma_ranges, place.address, place.size), place.size)
