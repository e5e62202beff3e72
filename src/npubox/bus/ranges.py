# SPDX-License-Identifier: Apache-2.0
"""Which ranges of a DMA address space are mapped: the rules of `DmaSpace`, without memory behind them."""

from __future__ import annotations

import errno
import mmap
from bisect import bisect_right


class MappedRanges:
    """Ranges that do not overlap. Not locked."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._sizes: list[int] = []

    def add(self, address: int, offset: int, size: int) -> None:
        """OSError EINVAL for what is not made of whole pages, EEXIST on overlap."""
        if size <= 0 or address < 0 or (address | offset | size) % mmap.PAGESIZE:
            raise OSError(errno.EINVAL, f"DMA mapping {address:#x}+{size:#x} is not made of whole pages")
        at = bisect_right(self._starts, address)
        if (at and self._starts[at - 1] + self._sizes[at - 1] > address) or (
            at < len(self._starts) and address + size > self._starts[at]
        ):
            raise OSError(errno.EEXIST, f"DMA mapping {address:#x}+{size:#x} overlaps another")
        self._starts.insert(at, address)
        self._sizes.insert(at, size)

    def remove(self, address: int, size: int) -> None:
        """OSError ENOENT unless exactly this was added."""
        at = bisect_right(self._starts, address) - 1
        if at < 0 or self._starts[at] != address or self._sizes[at] != size:
            raise OSError(errno.ENOENT, f"no DMA mapping {address:#x}+{size:#x}")
        del self._starts[at], self._sizes[at]

    def check(self, address: int, size: int) -> None:
        """OSError ENOENT unless one range holds [address, address + size)."""
        at = bisect_right(self._starts, address) - 1
        if size < 0 or at < 0 or address + size > self._starts[at] + self._sizes[at]:
            raise OSError(errno.ENOENT, f"no DMA mapping holds {address:#x}+{size:#x}")
