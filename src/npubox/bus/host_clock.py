# SPDX-License-Identifier: Apache-2.0
"""The host's monotonic time as a device's clock: for devices that keep no time of the machine's own."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

from npubox.bus.virtual import PendingTimer

SECOND = 1_000_000_000


class HostClock:
    """A `Clock` that counts from when it was made. Its thread starts with the first timer."""

    def __init__(self) -> None:
        self._start = time.monotonic_ns()
        self._changed = threading.Condition()
        self._timers: list[PendingTimer] = []
        self._order = itertools.count()
        self._thread: threading.Thread | None = None
        self._closed = False

    def now(self) -> int:
        return time.monotonic_ns() - self._start

    def sleep(self, duration: int) -> None:
        time.sleep(duration / SECOND)

    def call_at(self, deadline: int, callback: Callable[[], None]) -> PendingTimer:
        timer = PendingTimer(deadline, next(self._order), callback)
        with self._changed:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="npubox-host-clock", daemon=True)
                self._thread.start()
            heapq.heappush(self._timers, timer)
            self._changed.notify()
        return timer

    def close(self) -> None:
        """Pending timers never fire."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not (self._timers and self._timers[0].deadline <= self.now()):
                    wait = (self._timers[0].deadline - self.now()) / SECOND if self._timers else None
                    self._changed.wait(wait)
                if self._closed:
                    return
                timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                timer.callback()
