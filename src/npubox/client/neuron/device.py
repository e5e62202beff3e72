# SPDX-License-Identifier: Apache-2.0
"""One NeuronDevice, and the devices of a machine."""

from __future__ import annotations

import ctypes
import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from npubox.client.neuron.memory import Memory
from npubox.client.neuron.node import NeuronNode
from npubox.client.neuron.notifications import NotificationQueue
from npubox.client.neuron.rings import DmaRing
from npubox.client.node import HostNode
from npubox.errors import DeviceError
from npubox.hw.neuron.address import CORES
from npubox.hw.neuron.putils import NotificationType
from npubox.uapi import neuron as uapi
from npubox.uapi import neuron_structs as structs
from npubox.uapi.ioctl import Ioctl

NODES = "/dev/neuron"


@dataclass(frozen=True)
class DeviceInfo:
    """What the driver tells of a chip; `neighbours` are device indices, east first; `bdf` its PCI address."""

    index: int
    architecture: int
    revision: int
    cores: int
    neighbours: tuple[int, ...]
    bdf: str


class Semaphore:
    """One of a core's 32 semaphores: a signed 32-bit counter."""

    def __init__(self, node: NeuronNode, core: int, index: int) -> None:
        self._node = node
        self._place = {"nc_id": core, "semaphore_index": index}

    @property
    def value(self) -> int:
        args = self._call(uapi.SEMAPHORE_READ, 0)
        return ctypes.c_int32(args.value).value

    @value.setter
    def value(self, value: int) -> None:
        self._call(uapi.SEMAPHORE_WRITE, value)

    def increment(self, by: int = 1) -> None:
        self._call(uapi.SEMAPHORE_INCREMENT, by)

    def decrement(self, by: int = 1) -> None:
        self._call(uapi.SEMAPHORE_DECREMENT, by)

    def _call(self, ioctl: Ioctl[structs.Semaphore], value: int) -> structs.Semaphore:
        args = structs.Semaphore(**self._place, value=value & 0xFFFF_FFFF)
        self._node.call(ioctl, args)
        return args


class Device:
    """An open /dev/neuron<N>. Methods raise DeviceError with the call and the kernel's reason.

    `close` gives everything back that this process has there: memory, rings, locks.
    """

    def __init__(self, node: NeuronNode) -> None:
        self.node = node

    def info(self) -> DeviceInfo:
        info, bdf, index = structs.DeviceInfo(), structs.DeviceBdfExt(), structs.HostDeviceId()
        self.node.call(uapi.DEVICE_INFO, info)
        self.node.call(uapi.DEVICE_BDF_EXT, bdf)
        self.node.call(uapi.HOST_DEVICE_ID, index)
        return DeviceInfo(
            index=index.host_device_id,
            architecture=info.architecture,
            revision=info.revision,
            cores=CORES,
            neighbours=tuple(info.connected_devices[: info.connected_device_count]),
            bdf=f"{bdf.domain:04x}:{bdf.bus_number:02x}:{bdf.slot:02x}.{bdf.func:x}",
        )

    def processes(self) -> tuple[int, ...]:
        """The ids of the processes that are attached to it."""
        size = ctypes.sizeof(structs.GetAppsInfo)
        room = ctypes.create_string_buffer(size + uapi.PROCESSES * ctypes.sizeof(structs.NeuronAppInfo))
        args = structs.GetAppsInfo.from_buffer(room)
        args.capacity = uapi.PROCESSES
        self.node.call(uapi.DEVICE_GET_ALL_APPS_INFO, args)
        apps = (structs.NeuronAppInfo * args.size).from_buffer(room, size)
        return tuple(app.pid for app in apps)

    def allocate(
        self, size: int, *, host: bool = False, channel: int = 0, region: int = 0, core: int = 0
    ) -> Memory:
        """Device memory in a DRAM channel (0, 1) and region (0 to 3), or host memory that both sides reach.
        `core` is the NeuronCore whose engine copies it."""
        return Memory(self.node, size, host=host, channel=channel, region=region, core=core)

    def ring(self, engine: int, queue: int = 0, length: int = 64) -> DmaRing:
        """A descriptor ring of `length` on one of 12 engines' 16 queues; engine 3 * core + 0..2."""
        return DmaRing(self.node, engine, queue, length)

    def notifications(
        self, core: int, kind: NotificationType, engine: int = 0, size: int = 4096
    ) -> NotificationQueue:
        """A core's queue of `size` bytes, a power of two."""
        return NotificationQueue(self.node, core, kind, engine, size)

    def semaphore(self, core: int, index: int) -> Semaphore:
        return Semaphore(self.node, core, index)

    def event(self, core: int, index: int) -> bool:
        """Whether one of a core's 256 events is set."""
        args = structs.Event(nc_id=core, event_index=index)
        self.node.call(uapi.EVENT_GET, args)
        return bool(args.value)

    def set_event(self, core: int, index: int, value: bool = True) -> None:
        self.node.call(uapi.EVENT_SET, structs.Event(nc_id=core, event_index=index, value=value))

    def mark_cores(self, count: int, first: int = 0, last: int = CORES - 1) -> tuple[int, ...]:
        """Mark `count` free cores in a row for this process, from `first` to `last` of this device on: them.
        They stay its own until it goes."""
        args = structs.CrwlNcMap(nc_count=count, start_nc_index=first, end_nc_index=last)
        self.node.call(uapi.CRWL_NC_RANGE_MARK, args)
        return tuple(core for core in range(64) if args.bitmap >> core & 1)

    def read_registers(self, addresses: Sequence[int]) -> list[int]:
        """32-bit words by device address, neighbours' too; through the firmware."""
        given = (ctypes.c_uint64 * len(addresses))(*addresses)
        values = (ctypes.c_uint32 * len(addresses))()
        args = structs.ReadHwCounters(
            address=ctypes.addressof(given), data=ctypes.addressof(values), count=len(addresses)
        )
        self.node.call(uapi.READ_HW_COUNTERS, args)
        return list(values)

    def reset(self) -> None:
        """Reset the whole chip, and wait. DRAM keeps its content; queues and notifications go."""
        request = structs.DeviceReset(nc_map=uapi.WHOLE_DEVICE)
        self.node.call(uapi.NC_RESET, request)
        ready = structs.DeviceReady(request_id=request.request_id)
        self.node.call(uapi.NC_RESET_READY, ready)
        if ready.result:
            raise DeviceError(f"{self.node.name}: the reset failed")

    def close(self) -> None:
        self.node.close()

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Devices:
    """The NeuronDevices of a machine, open. `machine` is the virtual one's public face, None on a host."""

    def __init__(self, name: str) -> None:
        """Power up a preset's machine, or open the host's nodes: `/dev/neuron` all, `/dev/neuron0` that one.
        Raises DeviceError."""
        self.machine: Any = None
        self._devices: list[Device] = []
        try:
            if name.startswith(NODES):
                self._open_host(name)
            else:
                self._power_up(name)
        except BaseException:
            self.close()
            raise

    def __getitem__(self, index: int) -> Device:
        return self._devices[index]

    def __iter__(self) -> Iterator[Device]:
        return iter(self._devices)

    def __len__(self) -> int:
        return len(self._devices)

    def close(self) -> None:
        for device in self._devices:
            device.close()
        if self.machine is not None:
            self.machine.close()

    def __enter__(self) -> Devices:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open_host(self, name: str) -> None:
        paths = [name] if name != NODES else sorted(glob.glob(f"{NODES}[0-9]*"), key=_number)
        if not paths:
            raise DeviceError(f"this host has no {NODES}0; `npubox devices` lists virtual machines that have")
        for path in paths:
            try:
                self._devices.append(Device(NeuronNode(path, HostNode.open(path))))
            except OSError as error:
                raise DeviceError(f"cannot open {path}: {error.strerror}") from error

    def _power_up(self, name: str) -> None:
        from npubox import machines  # late, as the virtual world is not needed for real hardware

        self.machine = machines.open_preset(name)
        paths = [node.path for node in self.machine.nodes if node.path.startswith(NODES)]
        if not paths:
            raise DeviceError(f"machine {name} has no NeuronDevice; use one such as inf1.xlarge")
        nodes = {path: NeuronNode(path, self.machine.open_node(path, os.O_RDWR)) for path in paths}
        self._devices += map(Device, nodes.values())

        def note(path: str, queue: str, reason: str) -> None:
            nodes[path].stopped[queue] = reason

        self.machine.watch_faults(note)


def _number(path: str) -> int:
    return int(path.removeprefix(NODES))
