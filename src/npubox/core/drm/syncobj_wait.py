# SPDX-License-Identifier: Apache-2.0
"""Who waits for points of sync objects: the WAIT ioctls, TRANSFER, and eventfds (accel-core.md §2.8).

What a wait found in the slots when it began is what it waits for, whatever happens to the slots later; an
empty slot gives the first fence that appears there. A fence with an error counts as signalled like any other.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Sequence

from npubox.core.drm.fence import Fence
from npubox.core.drm.syncobj import Syncobj
from npubox.uapi.drm_syncobj import NO_INDEX

_guard = threading.Lock()


class _Entry:
    """One point that a wait is about."""

    def __init__(self, wait: PointsWait, syncobj: Syncobj, point: int) -> None:
        self.wait = wait
        self.syncobj = syncobj
        self.point = point
        self.fence: Fence | None = None
        self.satisfied = False

    @property
    def ready(self) -> bool:
        return self.fence is not None and (self.wait.available or self.fence.signalled)

    def submitted(self, fence: Fence) -> None:
        self.fence = fence
        if self.wait.available or not fence.add_callback(self.signalled):
            self.signalled()
        elif self.wait.over:
            fence.remove_callback(self.signalled)

    def signalled(self) -> None:
        self.wait.entry_done(self)

    def leave(self) -> None:
        self.syncobj.forget(self)
        if self.fence is not None:
            self.fence.remove_callback(self.signalled)


class PointsWait:
    """A `Completion` that happens when one point, or with `need_all` every point, has signalled, or with
    `available` has a fence. `first` is the index that the ABI reports.

    A point without a fence is waited for by the `patient`; for others it is OSError EINVAL.
    """

    def __init__(
        self,
        points: Sequence[tuple[Syncobj, int]],
        *,
        need_all: bool = False,
        available: bool = False,
        patient: bool = False,
    ) -> None:
        self.available = available
        self.first = NO_INDEX
        self.over = False
        self._all = need_all
        self._entries = [_Entry(self, syncobj, point) for syncobj, point in points]
        self._callback: Callable[[], None] | None = None
        self._look(patient)

    def _look(self, patient: bool) -> None:
        ready = 0
        for index, entry in enumerate(self._entries):
            try:
                entry.fence = entry.syncobj.find(entry.point)
            except OSError:
                if not patient:
                    raise
            if entry.ready:
                self.first = min(self.first, index)
                ready += 1
        self.over = ready == len(self._entries) or (ready > 0 and not self._all)
        self._missing = len(self._entries) if self._all else 1

    def set_deadline(self, deadline_ns: int) -> None:
        """Pass the hint on to the fences that are there."""
        for entry in self._entries:
            if entry.fence is not None:
                entry.fence.set_deadline(deadline_ns)

    def start(self) -> None:
        """Wait, if it is not over at first sight."""
        for entry in self._entries:
            fence = entry.fence or entry.syncobj.watch(entry)
            if fence is not None:
                entry.submitted(fence)
        if self.over:
            self._leave()

    def found(self, index: int) -> Fence:
        """The fence that this wait found for its point number `index`; RuntimeError before it has."""
        fence = self._entries[index].fence
        if fence is None:
            raise RuntimeError("the point has no fence yet")
        return fence

    def entry_done(self, entry: _Entry) -> None:
        with _guard:
            if self.over or entry.satisfied:
                return
            entry.satisfied = True
            self._missing -= 1
            if self._missing:
                return
            if not self._all:
                self.first = next(index for index, entry in enumerate(self._entries) if entry.ready)
            self.over = True
            callback, self._callback = self._callback, None
        self._leave()
        if callback is not None:
            callback()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        with _guard:
            if self.over:
                return False
            self._callback = callback
            return True

    def remove_callback(self, callback: Callable[[], None]) -> bool:
        """The only one who waits gives up."""
        with _guard:
            if self.over:
                return False
            self.over = True
            self._callback = None
        self._leave()
        return True

    def _leave(self) -> None:
        for entry in self._entries:
            entry.leave()


class EventfdWatch:
    """Adds 1 to an eventfd, once, when a point has signalled, or with `available` has a fence; ends with the
    sync object. `fd` is its own."""

    def __init__(self, syncobj: Syncobj, point: int, fd: int, available: bool) -> None:
        self.point = point
        self._syncobj = syncobj
        self._fd = fd
        self._available = available
        self._fence: Fence | None = None
        syncobj.on_release(self, self._end)
        fence = syncobj.watch(self)
        if fence is not None:
            self.submitted(fence)

    def submitted(self, fence: Fence) -> None:
        self._fence = fence
        if self._available or not fence.add_callback(self._fire):
            self._fire()

    def _fire(self) -> None:
        self._syncobj.forget_release(self)
        fd = self._take()
        if fd < 0:
            return
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        # A full counter stays full, as the kernel's does; writing to it would block.
        if poll.poll(0):
            os.eventfd_write(fd, 1)
        os.close(fd)

    def _end(self) -> None:
        self._syncobj.forget(self)
        if self._fence is not None:
            self._fence.remove_callback(self._fire)
        fd = self._take()
        if fd >= 0:
            os.close(fd)

    def _take(self) -> int:
        with _guard:
            fd, self._fd = self._fd, -1
        return fd
