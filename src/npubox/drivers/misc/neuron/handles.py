# SPDX-License-Identifier: Apache-2.0
"""Memory handles: small numbers from 1 on, the one freed last is given first (facts, neuron.md §5.5)."""

from __future__ import annotations

import errno
from typing import Generic, TypeVar

T = TypeVar("T")

MOST_HANDLES = 512 * 8192


class Handles(Generic[T]):
    """The handle table of one device. Not locked."""

    def __init__(self) -> None:
        self._objects: dict[int, T] = {}
        self._freed: list[int] = []
        self._next = 1

    def add(self, item: T) -> int:
        """A handle for `item`; OSError ENOENT when all are taken."""
        if self._freed:
            handle = self._freed.pop()
        elif self._next < MOST_HANDLES:
            handle = self._next
            self._next += 1
        else:
            raise OSError(errno.ENOENT, "all memory handles of this device are taken")
        self._objects[handle] = item
        return handle

    def find(self, handle: int) -> T:
        """OSError EINVAL for a handle that stands for nothing."""
        item = self._objects.get(handle)
        if item is None:
            raise OSError(errno.EINVAL, f"{handle:#x} is no memory handle of this device")
        return item

    def remove(self, handle: int) -> None:
        del self._objects[handle]
        self._freed.append(handle)
