# SPDX-License-Identifier: Apache-2.0
"""Device time that passes only when a test, or a driver's sleep, says so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class ManualTimer:
    deadline: int
    callback: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualClock:
    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._now = 0
        self.timers: list[ManualTimer] = []

    def now(self) -> int:
        return self._now

    def call_at(self, deadline: int, callback: Callable[[], None]) -> ManualTimer:
        timer = ManualTimer(deadline, callback)
        with self._guard:
            self.timers.append(timer)
        return timer

    def sleep(self, duration: int) -> None:
        with self._guard:
            self._now += duration

    @property
    def armed(self) -> list[int]:
        """Deadlines of the timers that are still to come."""
        with self._guard:
            return sorted(timer.deadline for timer in self.timers if not timer.cancelled)

    def advance(self, duration: int) -> None:
        """Let time pass; the timers that come due run here, in order of their deadlines."""
        with self._guard:
            self._now += duration
            due = [timer for timer in self.timers if timer.deadline <= self._now]
            self.timers = [timer for timer in self.timers if timer.deadline > self._now]
        for timer in sorted(due, key=lambda timer: timer.deadline):
            if not timer.cancelled:
                timer.callback()
