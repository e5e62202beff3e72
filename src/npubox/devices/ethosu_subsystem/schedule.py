# SPDX-License-Identifier: Apache-2.0
"""Which NPU takes the next inference, and when, in device time.

NPUs run side by side on a host that runs them at its own pace, so each has a time of its own. The machine's
time is the earliest of the busy ones. The first inference that waits goes to the NPU that is free first in
device time, not to whichever thread comes first: an NPU that is free later waits while a busy one might
still end before that. So device time says what this many NPUs would take, however the host schedules.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from npubox.bus.virtual import VirtualClock


class HasId(Protocol):
    @property
    def user_arg(self) -> int: ...


RequestT = TypeVar("RequestT", bound=HasId)


@dataclass
class _Npu:
    time: int = 0
    busy: bool = False
    stuck: bool = False


class NpuClock:
    """One NPU's time, as its model advances it. Work is counted by the inference, not by the run."""

    def __init__(self, schedule: Schedule[RequestT], npu: int) -> None:
        self._schedule = schedule
        self._npu = npu

    def now(self) -> int:
        return self._schedule.time_of(self._npu)

    def advance_to(self, moment: int) -> None:
        self._schedule.advance(self._npu, moment)

    def begin_work(self) -> None:
        pass

    def end_work(self) -> None:
        pass

    def begin_hang(self) -> None:
        self._schedule.set_stuck(self._npu, True)

    def end_hang(self) -> None:
        self._schedule.set_stuck(self._npu, False)


class Schedule(Generic[RequestT]):
    """The FIFO of inferences, `depth` of them at most, and the NPUs that take from it."""

    def __init__(self, clock: VirtualClock, npus: int, depth: int) -> None:
        self._clock = clock
        self._depth = depth
        self._changed = threading.Condition()
        self._fifo: deque[tuple[RequestT, int]] = deque()
        self._npus = [_Npu() for _ in range(npus)]
        self._working = False
        self._stopped = True

    def start(self) -> None:
        with self._changed:
            self._stopped = False

    def stop(self) -> None:
        """Forget what waits, and have `take` return None."""
        with self._changed:
            self._stopped = True
            self._fifo.clear()
            self._flow()

    def push(self, request: RequestT, arrival: int) -> bool:
        """Queue an inference that came at device time `arrival`; False where the FIFO is full."""
        with self._changed:
            if len(self._fifo) >= self._depth:
                return False
            self._fifo.append((request, arrival))
            self._flow()
            return True

    def remove(self, user_arg: int) -> bool:
        """Take an inference back; False where none of that id waits."""
        with self._changed:
            for entry in self._fifo:
                if entry[0].user_arg == user_arg:
                    self._fifo.remove(entry)
                    self._flow()
                    return True
            return False

    def take(self, npu: int) -> RequestT | None:
        """The next inference for this NPU, whose time is then when it starts; None once stopped."""
        with self._changed:
            while not self._stopped and not self._may_start(npu):
                self._changed.wait()
            if self._stopped:
                return None
            request, arrival = self._fifo.popleft()
            state = self._npus[npu]
            state.busy = True
            state.time = max(state.time, arrival)
            self._flow()
            return request

    def release(self, npu: int) -> None:
        """The inference that this NPU took is over."""
        with self._changed:
            self._npus[npu].busy = False
            self._flow()

    def time_of(self, npu: int) -> int:
        with self._changed:
            return self._npus[npu].time

    def advance(self, npu: int, moment: int) -> None:
        with self._changed:
            state = self._npus[npu]
            state.time = max(state.time, moment)
            self._flow()

    def set_stuck(self, npu: int, stuck: bool) -> None:
        """A stuck NPU holds up nobody, and is no reason for time to stand still."""
        with self._changed:
            self._npus[npu].stuck = stuck
            self._flow()

    def _flow(self) -> None:
        """Something changed: let time pass as far as it has, and tell whether it passes by the NPUs' word."""
        able = [state for state in self._npus if not state.stuck]
        busy = [state.time for state in able if state.busy]
        if busy:
            self._clock.advance_to(min(busy))
        elif not self._fifo:
            self._clock.advance_to(max(state.time for state in self._npus))
        working = bool(busy or (able and self._fifo))
        if working and not self._working:
            self._clock.begin_work()
        elif self._working and not working:
            self._clock.end_work()
        self._working = working
        self._changed.notify_all()

    def _may_start(self, npu: int) -> bool:
        own = self._npus[npu]
        if not self._fifo or own.busy:
            return False
        arrival = self._fifo[0][1]
        start = max(own.time, arrival)
        for number, other in enumerate(self._npus):
            if number == npu or other.stuck:
                continue
            if other.busy and other.time < start and own.time > arrival:
                return False
            if not other.busy and (max(other.time, arrival), number) < (start, npu):
                return False
        return True
