# SPDX-License-Identifier: Apache-2.0
"""Memory of one device: allocations, their handles, their lives (facts, neuron.md §5)."""

from __future__ import annotations

import errno
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from npubox.core.ranges import page_align
from npubox.drivers.misc.neuron.handles import Handles
from npubox.drivers.misc.neuron.host_memory import AddressFile, HostBus
from npubox.drivers.misc.neuron.pools import Pool
from npubox.hw.neuron.address import DRAM_CHANNEL_SIZE, DRAM_CHANNELS, DRAM_REGIONS, dram_address
from npubox.uapi.neuron import MemType

REGION_SIZE = DRAM_CHANNEL_SIZE // DRAM_REGIONS
MOST_CORES = 8  # of any generation: what an allocation's `nc_id` is checked against
INT_MAX = (1 << 31) - 1
INT64_MAX = (1 << 63) - 1


class Lifetime(IntEnum):
    """How long an allocation lives unless it is freed (facts, neuron.md §5.4)."""

    PROCESS = 2
    """Until the process that allocated it goes."""
    OPENERS = 3
    """Until the last process closes the device."""
    DEVICE = 4


@dataclass(eq=False)
class Chunk:
    """An allocation: `size` bytes, whole pages, at device address `pa`. `owner` is a process id, 0 for the
    driver's own; `core` the NeuronCore whose engine copies it."""

    pa: int
    size: int
    host: bool
    channel: int
    region: int
    core: int
    mem_type: int
    lifetime: Lifetime
    owner: int
    handle: int = 0
    holds: int = 0
    parked: bool = False
    """Freed, but still mapped or copied: its pages stay taken until `holds` is 0."""

    @property
    def end(self) -> int:
        return self.pa + self.size

    def check_range(self, offset: int, size: int) -> None:
        """OSError EINVAL where [offset, offset + size) is not inside."""
        if offset + size > self.size:
            raise OSError(
                errno.EINVAL, f"{offset:#x}+{size:#x} is outside an allocation of {self.size:#x} bytes"
            )


@dataclass(frozen=True)
class Request:
    """What an allocation asks for. Sizes in bytes; `channel` and `region` place device memory."""

    size: int
    host: bool
    channel: int = 0
    region: int = 0
    core: int = 0
    align: int = 0
    mem_type: int = MemType.UNKNOWN_HOST

    def check(self) -> None:
        """OSError EINVAL where a field is out of bounds; host memory's channel and region are checked too."""
        if self.size > INT64_MAX:
            raise OSError(errno.EINVAL, f"{self.size} bytes are no size")
        if self.channel >= DRAM_CHANNELS or self.region >= DRAM_REGIONS or self.core >= MOST_CORES:
            raise OSError(
                errno.EINVAL,
                f"no channel {self.channel}, region {self.region} or core {self.core} of a device",
            )
        if self.host and self.align:
            raise OSError(errno.EINVAL, "host memory is not aligned on request")
        if self.align > INT_MAX:
            raise OSError(errno.EINVAL, f"{self.align} is no alignment")


class Memory:
    """Guarded by the driver's lock. Raises OSError with the module's errno."""

    def __init__(self, bus: HostBus, file: AddressFile, changed: Callable[[Chunk, int], None]) -> None:
        """`changed` is told each allocation (+1) and each free (-1)."""
        self.file = file
        self._changed = changed
        self._bus = bus
        self._pools = [
            [Pool(dram_address(channel, region * REGION_SIZE), REGION_SIZE) for region in range(DRAM_REGIONS)]
            for channel in range(DRAM_CHANNELS)
        ]
        self._handles: Handles[Chunk] = Handles()
        self._starts: list[int] = []
        self._chunks: list[Chunk] = []

    def __iter__(self) -> Iterator[Chunk]:
        """Every allocation, by address."""
        return iter(list(self._chunks))

    def allocate(self, request: Request, lifetime: Lifetime, owner: int = 0) -> Chunk:
        """Memory as asked for, host memory zeroed. EINVAL, ENOMEM."""
        request.check()
        size = page_align(request.size)
        if not size:
            raise OSError(errno.ENOMEM, "an allocation of 0 bytes")
        if request.host:
            pa = self._bus.attach(self.file.fd, size)
        else:
            pool = self._pools[request.channel][request.region]
            if request.mem_type == MemType.CONTIGUOUS_SCRATCHPAD_DEV:
                pa = pool.allocate_scratchpad(size)
            else:
                pa = pool.allocate(size, request.align)
        chunk = Chunk(
            pa,
            size,
            request.host,
            request.channel,
            request.region,
            request.core,
            request.mem_type,
            lifetime,
            owner,
        )
        at = bisect_right(self._starts, pa)
        self._starts.insert(at, pa)
        self._chunks.insert(at, chunk)
        self._changed(chunk, 1)
        return chunk

    def free(self, chunk: Chunk) -> None:
        """Give an allocation back, once nobody holds it. EINVAL for a scratchpad that is not the last."""
        if not chunk.host:
            self._pools[chunk.channel][chunk.region].check_free(chunk.pa)
        at = bisect_right(self._starts, chunk.pa) - 1
        del self._starts[at], self._chunks[at]
        self._changed(chunk, -1)
        if chunk.handle:
            self._handles.remove(chunk.handle)
            chunk.handle = 0
        if chunk.holds:
            chunk.parked = True
        else:
            self._give_back(chunk)

    def hold(self, *chunks: Chunk) -> None:
        """Keep the pages of allocations, whoever frees those meanwhile, until as many `drop`."""
        for chunk in chunks:
            chunk.holds += 1

    def drop(self, *chunks: Chunk) -> None:
        for chunk in chunks:
            chunk.holds -= 1
            if chunk.parked and not chunk.holds:
                self._give_back(chunk)

    def _give_back(self, chunk: Chunk) -> None:
        if chunk.host:
            self._bus.detach(self.file.fd, chunk.pa, chunk.size)
        else:
            self._pools[chunk.channel][chunk.region].free(chunk.pa, chunk.size)

    def free_all(self, chunks: Iterable[Chunk]) -> None:
        """Free several, the youngest scratchpads first."""
        for chunk in sorted(chunks, key=lambda chunk: chunk.pa):
            self.free(chunk)

    def handle_of(self, chunk: Chunk) -> int:
        """The chunk's handle, made when it is first asked for."""
        if not chunk.handle:
            chunk.handle = self._handles.add(chunk)
        return chunk.handle

    def find(self, handle: int) -> Chunk:
        """EINVAL for a handle that stands for nothing."""
        return self._handles.find(handle)

    def at(self, pa: int) -> Chunk | None:
        """The allocation that `pa` lies in."""
        index = bisect_right(self._starts, pa) - 1
        return self._chunks[index] if index >= 0 and pa < self._chunks[index].end else None

    def region_end(self, chunk: Chunk) -> int:
        """The first address behind the region that device memory lies in."""
        return self._pools[chunk.channel][chunk.region].end

    def read(self, chunk: Chunk, offset: int, size: int) -> bytes:
        """Bytes of host memory, as the CPU reads them."""
        return os.pread(self.file.fd, size, chunk.pa + offset)

    def write(self, chunk: Chunk, offset: int, data: bytes | memoryview) -> None:
        """Bytes of host memory, as the CPU writes them."""
        view = memoryview(data)
        done = 0
        while done < len(view):
            done += os.pwrite(self.file.fd, view[done:], chunk.pa + offset + done)

    def close(self) -> None:
        """Give everything back."""
        self.free_all(self)
