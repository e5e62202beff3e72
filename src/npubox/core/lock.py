# SPDX-License-Identifier: Apache-2.0
"""The one lock of a device, and the work that waits for it.

Work is posted by whoever must not wait for the lock: fence callbacks (the signaller may hold another
device's lock), interrupt and timer threads. It runs under the lock: at once if the lock is free, else
when its holder lets go.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType

_log = logging.getLogger(__name__)


class DeviceLock:
    """Not reentrant. Use as a context manager."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._work: deque[Callable[[], None]] = deque()
        self._owner: int | None = None

    @property
    def held(self) -> bool:
        """True if the calling thread holds the lock."""
        return self._owner == threading.get_ident()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._owner = threading.get_ident()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner = None
        self._lock.release()
        self._drain()

    def post(self, work: Callable[[], None]) -> None:
        """Run `work` under the lock, soon, on this thread or the holder's. Never waits."""
        self._work.append(work)
        self._drain()

    def _drain(self) -> None:
        # Whoever posts while the lock is held cannot get it, so the holder looks again after release.
        while self._work and self._lock.acquire(blocking=False):
            self._owner = threading.get_ident()
            try:
                self._run_one()
            finally:
                self._owner = None
                self._lock.release()

    def _run_one(self) -> None:
        try:
            work = self._work.popleft()
        except IndexError:
            return
        try:
            work()
        except Exception:
            # The thread that drains is not the one that posted: an error here must not reach it.
            _log.exception("work posted to a device failed")
