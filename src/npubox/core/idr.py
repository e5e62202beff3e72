# SPDX-License-Identifier: Apache-2.0
"""Numbers for objects, lowest free first: handles, flink names, minors."""

from __future__ import annotations

import errno
import heapq
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Idr(Generic[T]):
    """Maps integers in [first, last] to objects. Not locked."""

    def __init__(self, first: int, last: int = 0x7FFF_FFFF) -> None:
        self._next = first
        self._last = last
        self._freed: list[int] = []
        self._objects: dict[int, T] = {}

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._objects))

    def allocate(self, item: T) -> int:
        """Give `item` the lowest free number; OSError ENOSPC when all are taken."""
        if self._freed:
            number = heapq.heappop(self._freed)
        elif self._next > self._last:
            raise OSError(errno.ENOSPC, f"all numbers up to {self._last} are taken")
        else:
            number = self._next
            self._next += 1
        self._objects[number] = item
        return number

    def get(self, number: int) -> T | None:
        return self._objects.get(number)

    def remove(self, number: int) -> T | None:
        """Free `number` and return what it stood for, None if nothing."""
        item = self._objects.pop(number, None)
        if item is not None:
            heapq.heappush(self._freed, number)
        return item

    def values(self) -> list[T]:
        return [self._objects[number] for number in self]
