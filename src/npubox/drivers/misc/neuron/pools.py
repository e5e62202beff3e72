# SPDX-License-Identifier: Apache-2.0
"""Device memory pools: who has which pages of a 1 GiB region (facts, neuron.md §5.1).

First fit, lowest address, 4 KiB granularity. Contiguous scratchpads grow downwards from the region's end
and are freed in reverse order.
"""

from __future__ import annotations

import errno

from npubox.core.ranges import PAGE_SIZE, page_align


class Pool:
    """The free pages of [start, start + size). Not locked."""

    def __init__(self, start: int, size: int) -> None:
        self.end = start + size
        self._free = [(start, self.end)]
        self._scratchpads: list[tuple[int, int]] = []

    @property
    def free_bytes(self) -> int:
        return sum(end - start for start, end in self._free)

    def allocate(self, size: int, align: int = 0) -> int:
        """The lowest address with `size` free bytes, a multiple of pages; OSError ENOMEM.

        `align` counts above a page. It is rounded up to pages, and only a power of two means something.
        """
        mask = (page_align(align) - PAGE_SIZE) if align > PAGE_SIZE else 0
        for start, end in self._free:
            at = (start + mask) & ~mask
            if at + size <= end:
                self._take(at, size)
                return at
        raise OSError(errno.ENOMEM, f"no {size} bytes of device memory are free in this region")

    def allocate_scratchpad(self, size: int) -> int:
        """The `size` bytes right below the last scratchpad; OSError ENOMEM where they are not free."""
        at = (self._scratchpads[-1][0] if self._scratchpads else self.end) - size
        if not any(start <= at and at + size <= end for start, end in self._free):
            raise OSError(errno.ENOMEM, f"no {size} bytes are free below the scratchpads of this region")
        self._take(at, size)
        self._scratchpads.append((at, size))
        return at

    def check_free(self, address: int) -> None:
        """OSError EINVAL for a scratchpad that has younger ones below it."""
        if any(start == address for start, _ in self._scratchpads[:-1]):
            raise OSError(errno.EINVAL, "contiguous scratchpads are freed in reverse order")

    def free(self, address: int, size: int) -> None:
        """Take back what was given."""
        self._scratchpads = [pad for pad in self._scratchpads if pad[0] != address]
        free = sorted([*self._free, (address, address + size)])
        joined = free[:1]
        for start, end in free[1:]:
            if joined[-1][1] > start:
                raise ValueError(f"[{start:#x}, {end:#x}) is already free")
            if joined[-1][1] == start:
                joined[-1] = (joined[-1][0], end)
            else:
                joined.append((start, end))
        self._free = joined

    def _take(self, address: int, size: int) -> None:
        for index, (start, end) in enumerate(self._free):
            if start <= address and address + size <= end:
                rest = [(start, address), (address + size, end)]
                self._free[index : index + 1] = [(a, b) for a, b in rest if a < b]
                return
        raise ValueError(f"{address:#x} is not free")
