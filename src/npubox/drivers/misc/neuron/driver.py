# SPDX-License-Identifier: Apache-2.0
"""The driver: the chips of a machine, and what they share."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from npubox.bus.port import PciDevice
from npubox.core.lock import DeviceLock
from npubox.drivers.misc.neuron.crwl import CoreMarks
from npubox.drivers.misc.neuron.device import NeuronDevice
from npubox.drivers.misc.neuron.host_memory import AddressFile, HostBus
from npubox.drivers.misc.neuron.isolation import Isolation
from npubox.drivers.misc.neuron.policy import Policy
from npubox.drivers.misc.neuron.process_watch import ProcessWatch
from npubox.drivers.misc.neuron.topology import links
from npubox.drivers.misc.neuron.work import run
from npubox.hw.neuron.address import Window
from npubox.hw.neuron.pci import DEVICE_IDS, VENDOR_ID


class NeuronDriver:
    """Drives every chip of a machine; `devices` in order of their index.

    `isolate` keeps processes apart: each reaches its own memory and the cores that it marked, nothing else.
    """

    def __init__(
        self,
        ports: Sequence[PciDevice],
        files: Sequence[AddressFile],
        policy: Policy = Policy.STRICT,
        *,
        isolate: bool = False,
    ) -> None:
        """Probe and reset every chip. `files` take each chip's host memory, and stay their maker's to close.
        OSError ENODEV for a port that is no Inferentia."""
        for port in ports:
            if port.identity.vendor != VENDOR_ID or port.identity.device not in DEVICE_IDS:
                raise OSError(errno.ENODEV, f"{port.identity.address} is no Inferentia")
        self.policy = policy
        self.isolate = isolate
        self.lock = DeviceLock()
        self.bus = HostBus([port.dma for port in ports])
        self.marks = CoreMarks()
        self.isolation = Isolation((), ())
        self.devices = [NeuronDevice(self, *of) for of in zip(range(len(ports)), ports, files, strict=True)]
        self.unplugged = False
        self._watch = ProcessWatch(self._died)
        for device in self.devices:
            device.full_reset()
        if isolate:
            self.isolation = Isolation(self.devices, [self._links(device) for device in self.devices])

    def _links(self, device: NeuronDevice) -> dict[Window, int]:
        clock = device.port.clock
        return run(links(device.fwio, clock), self.lock, clock)

    @property
    def strict(self) -> bool:
        return self.policy is Policy.STRICT

    def device(self, index: int) -> NeuronDevice:
        """OSError EINVAL for a device that is not there."""
        if not 0 <= index < len(self.devices):
            raise OSError(errno.EINVAL, f"there is no device {index}")
        return self.devices[index]

    def unmark_cores(self, pid: int) -> None:
        """A process is gone, or closed its O_WRONLY file: its core marks go."""
        self.isolation.cores_changed(pid, self.marks.release(pid), -1)

    def restore_isolation(self, device: NeuronDevice) -> None:
        """A chip was reset, and its gate with it."""
        chunks = [(other, chunk) for other in self.devices for chunk in other.memory]
        self.isolation.restore(device, chunks, self.marks.owners)

    def watch_process(self, pid: int) -> None:
        """Clean up behind a process that dies while others still hold its descriptors."""
        self._watch.add(pid)

    def released(self, pid: int) -> None:
        """A process closed a device: if it has none open any more, nothing is granted to it."""
        if not any(pid in device.processes for device in self.devices):
            self.unmark_cores(pid)
            self.isolation.process_gone(pid)

    def _died(self, pid: int) -> None:
        with self.lock:
            for device in self.devices:
                if device.processes.forget(pid):
                    device.process_gone(pid)
            self.released(pid)

    def close(self) -> None:
        """Power down: calls that wait fail with ENODEV, and so do all later ones. May be called twice."""
        if self.unplugged:
            return
        self.unplugged = True
        self._watch.close()
        for device in self.devices:
            device.close()
