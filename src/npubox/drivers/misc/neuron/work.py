# SPDX-License-Identifier: Apache-2.0
"""Operations that wait for the device, as generators, and the thread that goes on with them.

The device never interrupts: completion is polled in memory. A generator yields how many nanoseconds of
device time to let pass before it looks again; it runs under the device's lock, which nobody holds while
it waits. A short one is over before its handler returns; others the worker goes on with, and the call
is a `Pending`.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from npubox.bus.port import Clock, PciDevice
from npubox.core.lock import DeviceLock

T = TypeVar("T")
Steps = Generator[int, None, T]

MICROSECOND = 1_000
MILLISECOND = 1_000_000
SECOND = 1_000_000_000
INLINE_LOOKS = 8

_log = logging.getLogger(__name__)


def poll(clock: Clock, ready: Callable[[], bool], budget: int, first: int = MICROSECOND) -> Steps[bool]:
    """Look until `ready`, or until `budget` ns of device time are over: whether it was.

    The pauses double from `first` ns up to a millisecond.
    """
    deadline = clock.now() + budget
    pause = first
    while not ready():
        if clock.now() >= deadline:
            return ready()
        yield pause
        pause = min(2 * pause, MILLISECOND)
    return True


def sleep(clock: Clock, duration: int) -> Steps[None]:
    """Let `duration` ns of device time pass."""
    deadline = clock.now() + duration
    while (left := deadline - clock.now()) > 0:
        yield left


class Turns:
    """Who is first may go on: a lock for generators."""

    def __init__(self) -> None:
        self._waiting: deque[object] = deque()

    def take(self) -> Steps[object]:
        """Wait for the turn; the ticket is for `leave`."""
        ticket = object()
        self._waiting.append(ticket)
        try:
            while self._waiting[0] is not ticket:
                yield MICROSECOND
        except BaseException:
            self._waiting.remove(ticket)
            raise
        return ticket

    def leave(self, ticket: object) -> None:
        self._waiting.remove(ticket)


class Once:
    """Something that happens once: a `Completion`."""

    def __init__(self) -> None:
        self.done = False
        self._guard = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    @property
    def wanted(self) -> bool:
        """Whether anybody waits for it."""
        return bool(self._callbacks)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        with self._guard:
            if self.done:
                return False
            self._callbacks.append(callback)
            return True

    def remove_callback(self, callback: Callable[[], None]) -> bool:
        with self._guard:
            if callback not in self._callbacks:
                return False
            self._callbacks.remove(callback)
            return True

    def happen(self) -> None:
        with self._guard:
            self.done = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


class Work(Once):
    """One operation. `value` or `error` count when it is `done`."""

    def __init__(self, steps: Steps[Any], then: Callable[[Any], int | None] | None = None) -> None:
        """`then` is for whoever answers the call: it takes the value, outside the device's lock."""
        super().__init__()
        self._steps = steps
        self.then = then
        self.value: Any = None
        self.error: OSError | None = None

    def step(self) -> int | None:
        """Go on, under the device's lock: the ns to let pass before the next step, None when done."""
        try:
            return next(self._steps)
        except StopIteration as stop:
            self.value = stop.value
        except OSError as error:
            self.error = error
        except Exception as error:  # a mistake of ours ends this call, not the thread that serves all
            _log.exception("an operation of the Neuron driver failed")
            self.error = OSError(errno.EIO, f"the driver failed: {error}")
        self.happen()
        return None

    def give_up(self, error: OSError) -> None:
        """The device is gone: end the operation where it stands."""
        self._steps.close()
        self.error = error
        self.happen()


class Worker:
    """Goes on with the operations of one device. Its thread starts with the first that has to wait."""

    def __init__(self, name: str, lock: DeviceLock, port: PciDevice) -> None:
        self._name = name
        self._lock = lock
        self._port = port
        self._works: list[Work] = []
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    def start(self, steps: Steps[Any], then: Callable[[Any], int | None] | None = None) -> Work:
        """Begin an operation, with the lock held; it may be over at once."""
        work = Work(steps, then)
        for _ in range(INLINE_LOOKS):
            if work.step() is None:
                return work
            if not self._port.lend():
                time.sleep(0)  # lets the device's thread run
        self._works.append(work)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"{self._name}-worker", daemon=True)
            self._thread.start()
        self._wake.set()
        return work

    def close(self) -> None:
        """Give up what is unfinished; without the lock."""
        with self._lock:
            self._closed = True
            works, self._works = self._works, []
            for work in works:
                work.give_up(OSError(errno.ENODEV, f"{self._name} is gone"))
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait()
            pause = self._round()
            if pause is not None and not self._port.lend():
                self._port.clock.sleep(pause)

    def _round(self) -> int | None:
        with self._lock:
            pauses = []
            for work in list(self._works):
                pause = work.step()
                if pause is None:
                    self._works.remove(work)
                else:
                    pauses.append(pause)
            if not self._works and not self._closed:
                self._wake.clear()
            return min(pauses, default=None)


def run(steps: Steps[T], lock: DeviceLock, clock: Clock) -> T:
    """Carry an operation out on the calling thread, which must not hold the lock; raises what it raises."""
    while True:
        with lock:
            try:
                pause = next(steps)
            except StopIteration as stop:
                result: T = stop.value
                return result
        clock.sleep(pause)
