# SPDX-License-Identifier: Apache-2.0
"""Device addresses for a driver's buffers."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from npubox.bus.port import DmaRange, DmaSpace, Prot, device_address
from npubox.core.ranges import PAGE_SIZE, RangeAllocator


class DeviceMemory:
    """Addresses in [start, end), which are the device's unless there are `dma_ranges` to translate by. A
    guard page after each buffer makes a device that runs past it fault instead of reading its neighbour."""

    def __init__(self, dma: DmaSpace, start: int, end: int, dma_ranges: Sequence[DmaRange] = ()) -> None:
        self._dma = dma
        self._ranges = RangeAllocator(start, end)
        self._dma_ranges = dma_ranges
        self._allocated: dict[int, int] = {}

    def map(self, fd: int, offset: int, size: int, prot: Prot) -> int:
        """Give `size` bytes of the file `fd` a device address; OSError ENOMEM when the space is full."""
        try:
            start = self._ranges.allocate(size + PAGE_SIZE)
        except OSError as error:
            raise OSError(errno.ENOMEM, f"the device's memory has no room for {size} bytes") from error
        address = device_address(self._dma_ranges, start, size)
        try:
            self._dma.map(address, fd, offset, size, prot)
        except OSError:
            self._ranges.free(start, size + PAGE_SIZE)
            raise
        self._allocated[address] = start
        return address

    def unmap(self, address: int, size: int) -> None:
        self._dma.unmap(address, size)
        self._ranges.free(self._allocated.pop(address), size + PAGE_SIZE)
