# SPDX-License-Identifier: Apache-2.0
"""/dev/sw_sync: timelines that a program advances by hand, the fence source of test suites.

Each open makes one. Source: the project's facts (accel-core.md §2.9).
"""

from __future__ import annotations

import errno
import heapq
import itertools
import os
import threading
import weakref

from npubox.core.caller import Caller
from npubox.core.drm.fence import Fence, new_context
from npubox.core.file import OpenFile, TokenStandIn
from npubox.core.pending import Pending
from npubox.core.struct_ioctls import Ioctls
from npubox.core.sync_file import SyncFile, fence_of
from npubox.uapi import sw_sync as uapi

DRIVER_NAME = "sw_sync"
VALUE_MASK = 0xFFFF_FFFF
LARGEST_STEP = 0x7FFF_FFFF
SWEEP = 64


class SwSyncFence(Fence):
    """Signals when its timeline reaches `seqno`; keeps the earliest deadline that it was given."""

    deadline_ns: int | None = None

    def set_deadline(self, deadline_ns: int) -> None:
        if self.deadline_ns is None or deadline_ns < self.deadline_ns:
            self.deadline_ns = deadline_ns


class Timeline:
    """A counter of 32 bits and the fences that wait for it, which it does not keep alive."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._guard = threading.Lock()
        self._context = new_context()
        self._position = 0
        self._order = itertools.count()
        self._waiting: list[tuple[int, int, weakref.ref[SwSyncFence]]] = []
        self._sweep_at = SWEEP

    def fence(self, value: int) -> SwSyncFence:
        """A fence for the moment when the counter reaches `value`, which may be past."""
        made = SwSyncFence(self._context, value, DRIVER_NAME, self.name)
        with self._guard:
            distance = _signed(value - self._position)
            if distance > 0:
                heapq.heappush(
                    self._waiting, (self._position + distance, next(self._order), weakref.ref(made))
                )
                self._sweep()
        if distance <= 0:
            made.signal()
        return made

    def advance(self, increment: int) -> None:
        """Count up; what becomes due signals in the order of its values."""
        while increment > 0:
            step = min(increment, LARGEST_STEP)
            increment -= step
            due = []
            with self._guard:
                self._position += step
                while self._waiting and self._waiting[0][0] <= self._position:
                    due.append(heapq.heappop(self._waiting)[2]())
            for fence in due:
                if fence is not None:
                    fence.signal()

    def end(self) -> None:
        """Nobody can advance it any more: what still waits signals with ENOENT."""
        with self._guard:
            orphans, self._waiting = sorted(self._waiting), []
        for _, _, reference in orphans:
            if (fence := reference()) is not None:
                fence.signal(errno.ENOENT)

    def _sweep(self) -> None:
        """Forget the fences that everybody else has forgotten."""
        if len(self._waiting) >= self._sweep_at:
            self._waiting = [entry for entry in self._waiting if entry[2]() is not None]
            heapq.heapify(self._waiting)
            self._sweep_at = 2 * len(self._waiting) + SWEEP


class SwSyncFile(OpenFile):
    """An open /dev/sw_sync; `name` is what its fences call their timeline, the opener's comm."""

    link = "/dev/sw_sync"

    def __init__(self, name: str) -> None:
        self.timeline = Timeline(name)
        self.stand_in = TokenStandIn()

    def ioctl(self, request: int, address: int, caller: Caller) -> int | Pending:
        return _IOCTLS.call(self, request, address, caller)

    def create_fence(self, args: uapi.CreateFenceData, caller: Caller) -> None:
        args.fence = caller.files.install(SyncFile(self.timeline.fence(args.value)), os.O_CLOEXEC | os.O_RDWR)

    def increment(self, args: uapi.Increment, caller: Caller) -> None:
        self.timeline.advance(args.value)

    def get_deadline(self, args: uapi.GetDeadline, caller: Caller) -> None:
        fence = fence_of(caller.files, args.fence_fd)
        if not isinstance(fence, SwSyncFence):
            raise OSError(errno.EINVAL, f"the fence of descriptor {args.fence_fd} is not sw_sync's")
        if fence.deadline_ns is None:
            raise OSError(errno.ENOENT, "nobody gave the fence a deadline")
        args.deadline_ns = fence.deadline_ns

    def release(self) -> None:
        self.timeline.end()


_IOCTLS = Ioctls(
    (uapi.CREATE_FENCE, SwSyncFile.create_fence),
    (uapi.INC, SwSyncFile.increment),
    (uapi.GET_DEADLINE, SwSyncFile.get_deadline),
)


def _signed(value: int) -> int:
    value &= VALUE_MASK
    return value - (1 << 32) if value > LARGEST_STEP else value
