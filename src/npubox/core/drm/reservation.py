# SPDX-License-Identifier: Apache-2.0
"""Reservation objects: the fences of a buffer, and who has to wait for which (accel-core.md §3.6)."""

from __future__ import annotations

import threading
from enum import IntEnum

from npubox.core.drm.fence import Fence
from npubox.core.drm.fence_container import FenceArray


class Usage(IntEnum):
    """What a fence means for an object. A query sees its own level and those below."""

    KERNEL = 0
    WRITE = 1
    READ = 2
    BOOKKEEP = 3

    @classmethod
    def before(cls, write: bool) -> Usage:
        """The level that a new access has to wait for: a writer for everybody, a reader for writers."""
        return cls.READ if write else cls.WRITE


class Reservation:
    """The fences of one object, which devices may share."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: list[tuple[Fence, Usage]] = []

    def add(self, fence: Fence, usage: Usage) -> None:
        """Attach a fence; it replaces an earlier one of its context at the same or a weaker usage."""
        with self._guard:
            self._entries = [
                (old, level)
                for old, level in self._entries
                if not old.signalled
                and not (old.context == fence.context and level >= usage and not old.is_later(fence))
            ]
            self._entries.append((fence, usage))

    def fences(self, usage: Usage) -> list[Fence]:
        """The fences at `usage` and below that have not signalled."""
        return [fence for fence, level in self._entries if level <= usage and not fence.signalled]

    def singleton(self, usage: Usage) -> Fence | None:
        """All of `fences` as one, None if there are none."""
        fences = self.fences(usage)
        return FenceArray(fences) if len(fences) > 1 else next(iter(fences), None)
