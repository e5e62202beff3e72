# SPDX-License-Identifier: Apache-2.0
"""Coherent host memory: pages that the CPU and every chip of the machine reach (facts, neuron.md §5.3).

They lie below 4 GiB on the bus. Each device has one sparse file, in which a page's offset is its address
as the device sees it, bit 46 included: so the mmap offset of the ABI is the file's own, and a mapping of
the file is the memory, natively.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from npubox.bus.port import DmaSpace, Prot
from npubox.core import libc
from npubox.core.ranges import RangeAllocator
from npubox.core.store import unnamed_file
from npubox.hw.neuron.address import WINDOW_MASK, Window, through

BUS_START = 0x1000_0000
BUS_END = 1 << 32
FILE_SIZE = through(Window.HOST, BUS_END)


@contextmanager
def unless_gone() -> Iterator[None]:
    """What a chip that is gone would have to let go of is gone with it: its ENODEV is no error here."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise


class HostBus:
    """The bus addresses that the machine's devices share. Guarded by the driver's lock."""

    def __init__(self, spaces: Sequence[DmaSpace]) -> None:
        """`spaces`: the address space of each chip."""
        self._spaces = spaces
        self._addresses = RangeAllocator(BUS_START, BUS_END)

    @property
    def free_bytes(self) -> int:
        return self._addresses.free_bytes

    def attach(self, fd: int, size: int) -> int:
        """Give `size` bytes a bus address and let every chip reach them there: they are those of file `fd`
        at the device address of it, which is returned. OSError ENOMEM."""
        try:
            bus = self._addresses.allocate(size)
        except OSError as error:
            raise OSError(errno.ENOMEM, f"no {size} bytes of host memory are left below 4 GiB") from error
        address = through(Window.HOST, bus)
        try:
            os.posix_fallocate(fd, address, size)
        except OSError as error:
            libc.punch_hole(fd, address, size)
            self._addresses.free(bus, size)
            raise OSError(errno.ENOMEM, f"the host has no {size} bytes of memory left") from error
        for space in self._spaces:
            space.map(bus, fd, address, size, Prot.READ | Prot.WRITE)
        return address

    def detach(self, fd: int, address: int, size: int) -> None:
        """Take the memory from the chips and give its pages back."""
        bus = address & WINDOW_MASK
        for space in self._spaces:
            with unless_gone():
                space.unmap(bus, size)
        libc.punch_hole(fd, address, size)
        self._addresses.free(bus, size)


class AddressFile:
    """A device's file of memory by device address; `directory` is where it can be linked."""

    def __init__(self) -> None:
        self.fd, self.directory = unnamed_file()
        try:
            os.ftruncate(self.fd, FILE_SIZE)
        except OSError as error:
            os.close(self.fd)
            raise OSError(
                errno.ENOTSUP, f"{self.directory} holds no file of {FILE_SIZE} bytes: set TMPDIR to a tmpfs"
            ) from error

    def close(self) -> None:
        os.close(self.fd)
