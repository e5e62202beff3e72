# SPDX-License-Identifier: Apache-2.0
"""An open file of /dev/neuron<N> (facts, neuron.md §2, §3.1, §4, §11.1)."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Sequence

from npubox.core.caller import Caller
from npubox.core.file import Backing, NodeStandIn, OpenFile
from npubox.core.pending import Pending
from npubox.drivers.misc.neuron.device import NeuronDevice
from npubox.drivers.misc.neuron.dispatch import dispatch
from npubox.drivers.misc.neuron.mappings import find_backing, find_chunk
from npubox.drivers.misc.neuron.memory import Chunk


class NeuronFile(OpenFile):
    """Opens the device and attaches the process: OSError EINVAL where its reset failed, EBUSY where 16 other
    processes use it, ENODEV where it is gone. O_WRONLY attaches nobody and has the few misc ioctls only."""

    def __init__(self, device: NeuronDevice, flags: int, caller: Caller) -> None:
        self.device = device
        self.link = f"/dev/{device.name}"
        self.stand_in = NodeStandIn(device.memory.file.fd)
        self._pid = caller.pid
        self._flags = flags
        self._mapped: dict[int, Chunk] = {}  # kept only where processes are kept apart
        self._misc_only = flags & os.O_ACCMODE == os.O_WRONLY
        self._check_plugged()
        if not self._misc_only:
            device.wait_settled()
            with device.lock:
                device.processes.attach(caller.pid)
        device.driver.watch_process(caller.pid)

    def ioctl(self, request: int, address: int, caller: Caller) -> int | Pending:
        return dispatch(self.device, self._misc_only, request, address, caller)

    def mmap(self, length: int, prot: int, flags: int, offset: int, caller: Caller) -> Backing:
        """The offset is the device address of what is mapped. EACCES, EINVAL, EPERM."""
        if self._misc_only:
            raise OSError(errno.EACCES, f"{self.link} was opened for writing only")
        if prot & mmap.PROT_WRITE and not self._flags & os.O_RDWR:
            raise OSError(errno.EACCES, f"{self.link} was opened for reading only")
        if not flags & mmap.MAP_SHARED:
            raise OSError(errno.EINVAL, "memory of a device is mapped shared")
        with self.device.lock:
            self._check_plugged()
            backing = find_backing(self.device, length, offset, caller)
            chunk = find_chunk(self.device, length, offset)
            if self.device.driver.isolate and chunk is not None and offset not in self._mapped:
                self.device.memory.hold(chunk)
                self._mapped[offset] = chunk
            return backing

    def forgotten(self) -> Sequence[tuple[int, int]]:
        return [(offset, chunk.size) for offset, chunk in list(self._mapped.items()) if chunk.parked]

    def unmapped(self, offset: int) -> None:
        with self.device.lock:
            chunk = self._mapped.pop(offset, None)
            if chunk is not None and not self.device.driver.unplugged:
                self.device.memory.drop(chunk)

    def _check_plugged(self) -> None:
        if self.device.driver.unplugged:
            raise OSError(errno.ENODEV, f"{self.link} is gone")

    def release(self) -> None:
        with self.device.lock:
            if self.device.driver.unplugged:
                return  # a mapping outlived the machine, which took everything back
            for chunk in self._mapped.values():
                self.device.memory.drop(chunk)
            self._mapped.clear()
            if self._misc_only:
                self.device.driver.unmark_cores(self._pid)
                self.device.driver.released(self._pid)
            elif self.device.processes.detach(self._pid):
                self.device.process_gone(self._pid)
