# SPDX-License-Identifier: Apache-2.0
"""Fences: something that happens once.

A fence is (context, seqno). It signals exactly once; its error is set before that or never. Callbacks
run in the signaller's context, in order, once; long chains are worked off iteratively. Source: the
project's facts (accel-core.md §3.5).
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable

_log = logging.getLogger(__name__)
_guard = threading.Lock()
_contexts = itertools.count(1)
_running = threading.local()


def new_context() -> int:
    """A fence context that no other fence in this process has."""
    return next(_contexts)


class Fence:
    """`status` is 0 before it signals, then 1 or the error as a negative errno."""

    def __init__(self, context: int, seqno: int, driver: str = "", timeline: str = "") -> None:
        self.context = context
        self.seqno = seqno
        self._driver = driver
        self._timeline = timeline
        self._error = 0
        self._signalled = False
        self.timestamp_ns: int | None = None
        self._callbacks: list[Callable[[], None]] = []

    @property
    def signalled(self) -> bool:
        return self._signalled

    @property
    def error(self) -> int:
        """The errno the fence carries, positive, 0 if none."""
        return self._error

    @property
    def status(self) -> int:
        if not self.signalled:
            return 0
        return -self.error if self.error else 1

    @property
    def driver_name(self) -> str:
        return "detached-driver" if self.signalled else self._driver

    @property
    def timeline_name(self) -> str:
        return "signaled-timeline" if self.signalled else self._timeline

    def is_later(self, other: Fence) -> bool:
        """True if this one comes after `other` in their common context, as the ABI compares: in 32 bits."""
        return 0 < (self.seqno - other.seqno) & 0xFFFF_FFFF < 0x8000_0000

    def set_deadline(self, deadline_ns: int) -> None:
        """Somebody needs the fence by then (CLOCK_MONOTONIC). A hint, which most fences do not take."""

    def signal(self, error: int = 0) -> bool:
        """Signal, with an errno if the work failed; False if the fence had signalled before."""
        with _guard:
            if self._signalled:
                return False
            self._error = error
            self._signalled = True
            self.timestamp_ns = time.monotonic_ns()
            callbacks, self._callbacks = self._callbacks, []
        _run(callbacks)
        return True

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call `callback` on signalling; False if the fence already has, and then it is never called."""
        with _guard:
            if self._signalled:
                return False
            self._callbacks.append(callback)
            return True

    def remove_callback(self, callback: Callable[[], None]) -> bool:
        with _guard:
            if callback not in self._callbacks:
                return False
            self._callbacks.remove(callback)
            return True


def signalled_fence(timestamp_ns: int | None = None) -> Fence:
    """The kernel's stub: a fence that has signalled, now or at `timestamp_ns`."""
    fence = Fence(new_context(), 1, "stub", "stub")
    fence.signal()
    if timestamp_ns is not None:
        fence.timestamp_ns = timestamp_ns
    return fence


def _run(callbacks: list[Callable[[], None]]) -> None:
    work: deque[Callable[[], None]] | None = getattr(_running, "work", None)
    if work is not None:
        work.extend(callbacks)
        return
    _running.work = work = deque(callbacks)
    try:
        while work:
            try:
                work.popleft()()
            except Exception:
                # One waiter's mistake must not keep the others waiting.
                _log.exception("a fence callback failed")
    finally:
        _running.work = None
