# SPDX-License-Identifier: Apache-2.0
"""Synchronisation objects: containers with one slot for a fence, shared by files, descriptors and devices.

In the slot is nothing, a fence, or the newest node of a timeline. One lock guards the slots of all of them;
whoever watches a point is called without it. Source: the project's facts (accel-core.md §2.8).
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from typing import Protocol

from npubox.core.drm.fence import Fence
from npubox.core.drm.fence_container import FenceChain, find_point, merge

_guard = threading.Lock()


class Watch(Protocol):
    """Somebody who needs the fence of a point that nobody has submitted yet."""

    @property
    def point(self) -> int: ...

    def submitted(self, fence: Fence) -> None:
        """The point has this fence now; called once."""


class Syncobj:
    """`get` and `put` count the handles and files that lead here; with the last one what was registered on
    the object ends (`on_release`)."""

    def __init__(self, fence: Fence | None = None) -> None:
        self._fence = fence
        self._watches: list[Watch] = []
        self._references = 1
        self._at_release: dict[object, Callable[[], None]] = {}

    def get(self) -> None:
        with _guard:
            self._references += 1

    def put(self) -> None:
        with _guard:
            self._references -= 1
            if self._references:
                return
            endings, self._at_release = list(self._at_release.values()), {}
        for end in endings:
            end()

    def on_release(self, key: object, end: Callable[[], None]) -> None:
        """Have `end` called when the object goes, unless `key` is forgotten before."""
        with _guard:
            self._at_release[key] = end

    def forget_release(self, key: object) -> None:
        with _guard:
            self._at_release.pop(key, None)

    def find(self, point: int) -> Fence:
        """The fence that stands for a point, 0 being whatever is in the slot; OSError EINVAL if none does."""
        fence = _find(self._fence, point)
        if fence is None:
            raise OSError(errno.EINVAL, f"nobody has submitted point {point} of the sync object")
        return fence

    def replace(self, fence: Fence | None) -> None:
        """Put a fence into the slot, or empty it; a timeline that was there is gone."""
        with _guard:
            if fence is self._fence:
                return
            found = self._set(fence)
        _tell(found)

    def add_point(self, point: int, fence: Fence) -> None:
        """Continue the timeline with a point that `fence` signals; `fence` is no chain."""
        with _guard:
            node = FenceChain(self._fence, fence, point)
            found = self._set(node)
        node.walk()
        _tell(found)

    def take_over(self, point: int, fence: Fence) -> None:
        """`replace`, or for another point than 0 `add_point`, with any fence."""
        if point:
            self.add_point(point, merge([fence]))
        else:
            self.replace(fence)

    def watch(self, watch: Watch) -> Fence | None:
        """The fence of `watch.point`, or None, and `watch` is told when there is one."""
        with _guard:
            fence = _find(self._fence, watch.point)
            if fence is None:
                self._watches.append(watch)
            return fence

    def forget(self, watch: Watch) -> None:
        with _guard:
            if watch in self._watches:
                self._watches.remove(watch)

    def query(self, last_submitted: bool) -> int:
        """The newest point submitted, or the newest below which all have signalled; 0 without a timeline."""
        newest = self._fence
        if not isinstance(newest, FenceChain):
            return 0
        if last_submitted:
            return newest.seqno
        oldest = newest
        for node in newest.links():
            if not isinstance(node, FenceChain) or node.context != newest.context:
                break
            oldest = node
        return oldest.seqno if oldest.signalled else oldest.prev_seqno

    def _set(self, fence: Fence | None) -> list[tuple[Watch, Fence]]:
        self._fence = fence
        found = [(watch, point) for watch in self._watches if (point := _find(fence, watch.point))]
        if found:
            told = {id(watch) for watch, _ in found}
            self._watches = [watch for watch in self._watches if id(watch) not in told]
        return found


def _find(fence: Fence | None, point: int) -> Fence | None:
    return None if fence is None else find_point(fence, point)


def _tell(found: list[tuple[Watch, Fence]]) -> None:
    for watch, fence in found:
        watch.submitted(fence)
