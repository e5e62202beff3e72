# SPDX-License-Identifier: Apache-2.0
"""A machine of virtual Inferentias, and programs that use its nodes."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
from types import TracebackType
from typing import Any

from npubox.bus.virtual import AddressSpace, VirtualClock, VirtualPciPort
from npubox.core.caller import Caller
from npubox.core.descriptors import OwnDescriptors
from npubox.core.pending import Pending
from npubox.core.usermem import OwnMemory
from npubox.devices.neuron.chip import Inferentia, connect
from npubox.devices.neuron.memory import DramFile
from npubox.drivers.misc.neuron.driver import NeuronDriver
from npubox.drivers.misc.neuron.file import NeuronFile
from npubox.drivers.misc.neuron.host_memory import AddressFile
from npubox.drivers.misc.neuron.policy import Policy
from npubox.hw.neuron.address import DRAM_CHANNELS, dram_address
from npubox.hw.neuron.pci import Revision
from npubox.uapi import neuron as uapi
from npubox.uapi import neuron_structs as structs
from npubox.uapi.ioctl import Ioctl
from tests.core.refaccel import fails

NOBODY = 1 << 26  # process ids from here on are nobody's on Linux
RW = mmap.PROT_READ | mmap.PROT_WRITE


class Machine:
    """Chips in a chain, and their driver."""

    def __init__(
        self,
        chips: int = 1,
        revision: int = Revision.QEMU,
        policy: Policy = Policy.STRICT,
        *,
        isolate: bool = False,
    ) -> None:
        self.clock = VirtualClock()
        self.files = [AddressFile() for _ in range(chips)]
        ports = []
        self.chips = []
        for index, file in enumerate(self.files):
            dma = AddressSpace()
            dram = DramFile(file.fd, tuple(dram_address(channel) for channel in range(DRAM_CHANNELS)))
            address = f"0000:00:{index + 1:02x}.0"
            chip = Inferentia(dma, self.clock, address=address, revision=revision, dram=dram)
            self.chips.append(chip)
            ports.append(VirtualPciPort(chip, dma, self.clock))
        connect(self.chips)
        self.driver = NeuronDriver(ports, self.files, policy, isolate=isolate)
        self._pids = itertools.count(NOBODY)

    def program(self, index: int = 0, flags: int = os.O_RDWR, pid: int = 0) -> Program:
        """A new process, or `pid`, that opens a node."""
        return Program(self, index, flags, pid or next(self._pids))

    def close(self) -> None:
        self.driver.close()
        for chip in self.chips:
            chip.close()
        self.clock.close()
        for file in self.files:
            file.close()

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Program:
    """One open file of one process. Its memory is ours."""

    def __init__(
        self, machine: Machine, index: int, flags: int, pid: int, *, sys_admin: bool = False
    ) -> None:
        self.machine = machine
        self.pid = pid
        self.caller = Caller(pid, lambda: sys_admin, OwnMemory(), OwnDescriptors())
        self.file = NeuronFile(machine.driver.devices[index], flags, self.caller)

    def begin(self, ioctl: Ioctl[Any], args: ctypes.Structure | None = None) -> int | Pending:
        address = 0 if args is None else ctypes.addressof(args)
        return self.file.ioctl(ioctl.number, address, self.caller)

    def call(self, ioctl: Ioctl[Any], args: ctypes.Structure | None = None) -> int:
        result = self.begin(ioctl, args)
        return result.wait() if isinstance(result, Pending) else result

    def fails(self, error: int, ioctl: Ioctl[Any], args: ctypes.Structure | None = None) -> None:
        with fails(error):
            self.call(ioctl, args)

    def alloc(
        self, size: int, *, host: bool = False, channel: int = 0, region: int = 0, core: int = 0
    ) -> int:
        handle = ctypes.c_uint64()
        args = structs.MemAlloc(
            size=size,
            host_memory=host,
            dram_channel=channel,
            dram_region=region,
            nc_id=core,
            mem_handle=ctypes.addressof(handle),
        )
        assert self.call(uapi.MEM_ALLOC, args) == 0
        return handle.value

    def free(self, handle: int) -> None:
        assert self.call(uapi.MEM_FREE, structs.MemFree(mem_handle=handle)) == 0

    def pa(self, handle: int) -> int:
        value = ctypes.c_uint64()
        args = structs.MemGetPa(mem_handle=handle, pa=ctypes.addressof(value))
        assert self.call(uapi.MEM_GET_PA, args) == 0
        return value.value

    def write(self, handle: int, data: bytes, offset: int = 0) -> None:
        buffer = ctypes.create_string_buffer(data, len(data))
        args = structs.MemBufCopy64(
            mem_handle=handle,
            buffer=ctypes.addressof(buffer),
            size=len(data),
            offset=offset,
            copy_to_mem_handle=1,
        )
        assert self.call(uapi.MEM_BUF_COPY64, args) == 0

    def read(self, handle: int, size: int, offset: int = 0) -> bytes:
        buffer = ctypes.create_string_buffer(size)
        args = structs.MemBufCopy64(
            mem_handle=handle, buffer=ctypes.addressof(buffer), size=size, offset=offset
        )
        assert self.call(uapi.MEM_BUF_COPY64, args) == 0
        return buffer.raw

    def copy(self, source: int, destination: int, size: int) -> None:
        args = structs.MemCopy64(src_mem_handle=source, dst_mem_handle=destination, size=size)
        assert self.call(uapi.MEM_COPY64, args) == 0

    def mmap(self, size: int, address: int, prot: int = RW) -> mmap.mmap:
        backing = self.file.mmap(size, prot, mmap.MAP_SHARED, address, self.caller)
        if not backing.writable:
            prot &= ~mmap.PROT_WRITE
        return mmap.mmap(backing.fd, size, mmap.MAP_SHARED, prot, offset=backing.offset)

    def csr(self, address: int) -> int:
        """A 32-bit word by device address."""
        given, value = ctypes.c_uint64(address), ctypes.c_uint32()
        args = structs.ReadHwCounters(address=ctypes.addressof(given), data=ctypes.addressof(value), count=1)
        assert self.call(uapi.READ_HW_COUNTERS, args) == 0
        return value.value

    def close(self) -> None:
        self.file.release()
