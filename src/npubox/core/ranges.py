# SPDX-License-Identifier: Apache-2.0
"""A first-fit allocator of page ranges: mmap offsets, device addresses."""

from __future__ import annotations

import errno
from bisect import bisect_left

PAGE_SIZE = 4096


def page_align(size: int) -> int:
    """`size` bytes rounded up to whole pages."""
    return -(-size // PAGE_SIZE) * PAGE_SIZE


class RangeAllocator:
    """Hands out page-aligned ranges of [start, end), lowest address first. Not locked."""

    def __init__(self, start: int, end: int) -> None:
        if start % PAGE_SIZE or end % PAGE_SIZE or start >= end:
            raise ValueError(f"[{start:#x}, {end:#x}) is not a range of whole pages")
        self._starts = [start]
        self._ends = [end]

    @property
    def free_bytes(self) -> int:
        return sum(self._ends) - sum(self._starts)

    def allocate(self, size: int) -> int:
        """The lowest free address with `size` bytes, rounded up to pages; OSError ENOSPC if none."""
        size = page_align(size)
        if size <= 0:
            raise ValueError(f"a range of {size} bytes")
        for index, (start, end) in enumerate(zip(self._starts, self._ends, strict=True)):
            if end - start > size:
                self._starts[index] = start + size
                return start
            if end - start == size:
                del self._starts[index], self._ends[index]
                return start
        raise OSError(errno.ENOSPC, f"no free range of {size} bytes is left")

    def free(self, address: int, size: int) -> None:
        """Take back what `allocate` gave, joining free neighbours."""
        end = address + page_align(size)
        index = bisect_left(self._starts, address)
        if index < len(self._starts) and self._starts[index] < end:
            raise ValueError(f"[{address:#x}, {end:#x}) is already free")
        if index > 0 and self._ends[index - 1] > address:
            raise ValueError(f"[{address:#x}, {end:#x}) is already free")
        joins_left = index > 0 and self._ends[index - 1] == address
        joins_right = index < len(self._starts) and self._starts[index] == end
        if joins_left and joins_right:
            self._ends[index - 1] = self._ends[index]
            del self._starts[index], self._ends[index]
        elif joins_left:
            self._ends[index - 1] = end
        elif joins_right:
            self._starts[index] = address
        else:
            self._starts.insert(index, address)
            self._ends.insert(index, end)
