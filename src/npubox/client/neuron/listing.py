# SPDX-License-Identifier: Apache-2.0
"""What there is of NeuronDevices, and who uses them."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from npubox.client.neuron.device import NODES, Device, Devices
from npubox.errors import DeviceError
from npubox.hw.neuron.address import DRAM_CHANNEL_SIZE, DRAM_CHANNELS
from npubox.uapi import neuron as uapi
from npubox.uapi import neuron_structs as structs

SIGNATURE = b"nds\0"
RUNTIME_VERSION = struct.Struct("<IBBxx")
RUNTIME_VERSION_AT = 8
"""In a datastore: build, minor, major of the runtime (facts, neuron.md §11.2)."""


@dataclass(frozen=True)
class NeuronProcess:
    """A process that uses a device; `runtime_version` is empty where it keeps no datastore."""

    pid: int
    command: str
    runtime_version: str


@dataclass(frozen=True)
class Listed:
    """One device; `memory` in bytes, `first_core` its first core's global number."""

    index: int
    bdf: str
    cores: int
    memory: int
    neighbours: tuple[int, ...]
    first_core: int
    processes: tuple[NeuronProcess, ...]

    def to_json(self) -> dict[str, Any]:
        """As the vendor's tool names it (facts, neuron-tools.md)."""
        return {
            "neuron_device": self.index,
            "bdf": self.bdf,
            "connected_to": list(self.neighbours) or None,
            "nc_count": self.cores,
            "memory_size": self.memory,
            "neuroncore_ids": list(range(self.first_core, self.first_core + self.cores)),
            "neuron_processes": [
                {
                    "pid": process.pid,
                    "command": process.command,
                    "neuron_runtime_version": process.runtime_version,
                }
                for process in self.processes
            ],
        }


def listing(name: str | None = None, *, all_processes: bool = False) -> Sequence[Listed]:
    """The devices of a virtual machine, or of this host. Raises DeviceError."""
    with Devices(name or NODES) as devices:
        return [_listed(device, all_processes) for device in devices]


def _listed(device: Device, all_processes: bool) -> Listed:
    info = device.info()
    processes = [_process(device, pid) for pid in device.processes() if pid != os.getpid()]
    return Listed(
        index=info.index,
        bdf=info.bdf,
        cores=info.cores,
        memory=DRAM_CHANNELS * DRAM_CHANNEL_SIZE,
        neighbours=info.neighbours,
        first_core=info.index * info.cores,
        processes=tuple(found for found in processes if all_processes or found.runtime_version),
    )


def _process(device: Device, pid: int) -> NeuronProcess:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        command = ""
    return NeuronProcess(pid, command, _runtime_version(device, pid))


def _runtime_version(device: Device, pid: int) -> str:
    args = structs.NeuronDsInfo(pid=pid)
    try:
        device.node.call(uapi.ACQUIRE_NEURON_DS, args)
        store = device.node.map(args.mmap_offset, args.size)
    except DeviceError:
        return ""
    with store:
        if store[: len(SIGNATURE)] != SIGNATURE:
            return ""
        build, minor, major = RUNTIME_VERSION.unpack_from(store, RUNTIME_VERSION_AT)
    return f"{major}.{minor}.{build}"
