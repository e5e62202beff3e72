# SPDX-License-Identifier: Apache-2.0
"""A moment of device time that is put off again and again."""

from __future__ import annotations

from collections.abc import Callable

from npubox.bus.port import Clock, Timer
from npubox.core.lock import DeviceLock


class Deadline:
    """Calls `passed` under the lock once the moment has come. Putting it off costs no timer. Use it under
    the lock."""

    def __init__(self, clock: Clock, lock: DeviceLock, passed: Callable[[], None]) -> None:
        self._clock = clock
        self._lock = lock
        self._passed = passed
        self._moment = 0
        self._timer: Timer | None = None
        self._round = 0

    def set(self, duration: int) -> None:
        """`duration` nanoseconds from now, whatever was set before."""
        self._moment = self._clock.now() + duration
        if self._timer is None:
            self._arm()

    def clear(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self._round += 1
        current = self._round
        self._timer = self._clock.call_at(self._moment, lambda: self._lock.post(lambda: self._fired(current)))

    def _fired(self, fired_round: int) -> None:
        if self._timer is None or fired_round != self._round:
            return  # cleared while the callback was on its way
        self._timer = None
        if self._clock.now() < self._moment:
            self._arm()
        else:
            self._passed()
