# SPDX-License-Identifier: Apache-2.0
"""What an mmap of the node maps (facts, neuron.md §4).

The offset is the device address of the memory, and the length the whole allocation's. Everything else is
raw device memory, for the privileged.
"""

from __future__ import annotations

import errno

from npubox.core.caller import Caller
from npubox.core.file import Backing
from npubox.core.ranges import PAGE_SIZE, page_align
from npubox.drivers.misc.neuron.device import NeuronDevice
from npubox.drivers.misc.neuron.memory import Chunk, Lifetime
from npubox.hw.neuron.address import dram_bar_offset
from npubox.hw.neuron.pci import Bar
from npubox.uapi.neuron import MemType


def find_chunk(device: NeuronDevice, length: int, offset: int) -> Chunk | None:
    """The allocation that a mapping is of, under the driver's lock; None where it is of raw memory."""
    chunk = device.memory.at(offset)
    return chunk if chunk is not None and _fits(device, chunk, offset, page_align(length)) else None


def find_backing(device: NeuronDevice, length: int, offset: int, caller: Caller) -> Backing:
    """Under the driver's lock. EPERM for raw memory without privilege, EINVAL for none at all."""
    size = page_align(length)
    chunk = find_chunk(device, length, offset)
    if chunk is not None:
        if device.driver.isolate and chunk.owner != caller.pid:
            raise OSError(errno.EPERM, f"the memory at {chunk.pa:#x} is another process's")
        return _backing(device, chunk.host, offset, size, writable=_may_write(chunk, caller))
    if device.driver.isolate or not caller.sys_admin():
        raise OSError(errno.EPERM, f"{length} bytes at {offset:#x} are no whole allocation")
    if offset % PAGE_SIZE:
        raise OSError(errno.EINVAL, f"{offset:#x} is no multiple of pages")
    return _backing(device, False, offset, size, writable=True)


def _fits(device: NeuronDevice, chunk: Chunk, offset: int, size: int) -> bool:
    if chunk.mem_type != MemType.CONTIGUOUS_SCRATCHPAD_DEV:
        return (offset, size) == (chunk.pa, chunk.size)
    # A scratchpad's mapping may go on through older ones, up to the end of the region.
    return offset + size <= device.memory.region_end(chunk)


def _may_write(chunk: Chunk, caller: Caller) -> bool:
    """A process that did not make the allocation only reads it, unless it lives as long as the device."""
    return chunk.owner == caller.pid or chunk.lifetime is Lifetime.DEVICE


def _backing(device: NeuronDevice, host: bool, address: int, size: int, *, writable: bool) -> Backing:
    if host:
        return Backing(device.memory.file.fd, address, writable)
    start = dram_bar_offset(address)
    if start is not None:
        for area in device.port.bars[Bar.DRAM].areas:
            if area.start <= start and start + size <= area.start + area.size:
                return Backing(area.fd, area.offset + start - area.start, writable)
    raise OSError(errno.EINVAL, f"{size} bytes at {address:#x} are no device memory")
