# SPDX-License-Identifier: Apache-2.0
"""The threads on which a chip's queues move data, and the device time that it takes."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from typing import Protocol

from npubox.bus.virtual import VirtualClock

_log = logging.getLogger(__name__)
_working = threading.local()
HOLD_BACK = 0.001
"""Seconds between two looks of a worker that stands by: it leaves tasks to whoever waits for them."""


class Task(Protocol):
    """A queue pair of an engine."""

    @property
    def runnable(self) -> bool: ...

    def run(self) -> int:
        """A slice of work; returns the device time that it is over. Raises nothing."""


class Worker:
    """Runs runnable tasks in turn, one slice at a time, on a thread of its own or on one that is lent.

    The thread starts with the first task, so an idle chip has none.
    """

    def __init__(self, name: str, clock: VirtualClock) -> None:
        self._name = name
        self._clock = clock
        self._guard = threading.Lock()
        self._ready: deque[Task] = deque()
        self._signal: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._awake = False
        """The thread looks for tasks by itself: it runs them, or holds back, as whoever waited for the last
        one did it. Else it sleeps until there is a signal."""
        self._lent = False
        """Whether whoever waited for the last slice did it."""
        self._idle = True
        """Whether nobody did one since the thread began to hold back."""
        self._queued: set[Task] = set()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._turn = threading.Lock()
        """Held by whoever runs a slice."""
        self._slices = 0
        self._slice_over = threading.Condition()
        self._settling = 0

    def schedule(self, task: Task) -> None:
        """Run `task` soon, and again as long as it is runnable."""
        with self._guard:
            if self._closed or task in self._queued:
                return
            self._queued.add(task)
            self._clock.begin_work()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._ready.append(task)
            wake, self._awake = not self._awake, True
        if wake:
            self._signal.put(None)

    def lend(self) -> bool:
        """Run a slice on the calling thread, unless one is running. Whether it did."""
        if not self._turn.acquire(blocking=False):
            return False
        try:
            if not self._next_slice():
                return False
            self._lent, self._idle = True, False
            return True
        finally:
            self._turn.release()
            self._announce_end()

    def settle(self) -> None:
        """Return when the slice that is running now is over; at once on a thread that runs one."""
        if getattr(_working, "now", False):
            return
        with self._slice_over:
            self._settling += 1
            now = self._slices
            self._slice_over.wait_for(lambda: not self._turn.locked() or self._slices != now)
            self._settling -= 1

    def close(self) -> None:
        """Stop after the slice that is running now."""
        with self._guard:
            self._closed = True
            thread = self._thread
        self._signal.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while not self._closed:
            self._signal.get()
            while self._stand_by():
                while self._ready:
                    with self._turn:
                        if self._next_slice():
                            self._lent = False
                    self._announce_end()

    def _stand_by(self) -> bool:
        """Whether the thread stays awake: there are tasks, or others did some while it held back, who will be
        back soon."""
        if self._lent and not self._closed:
            self._idle = True
            time.sleep(HOLD_BACK)
            if not self._idle:
                return True
        with self._guard:
            self._awake = bool(self._ready)
            return self._awake

    def _next_slice(self) -> bool:
        """With the turn. Whether there was a task."""
        try:
            task = self._ready.popleft()
        except IndexError:
            return False
        _working.now = True
        try:
            if not self._closed:
                with self._guard:
                    self._queued.discard(task)
                self._work(task)
        finally:
            _working.now = False
            self._clock.end_work()
        return True

    def _announce_end(self) -> None:
        self._slices += 1
        if self._settling:
            with self._slice_over:
                self._slice_over.notify_all()

    def _work(self, task: Task) -> None:
        try:
            self._clock.advance_to(task.run())
        except Exception:
            _log.exception("%s: a queue broke; the others go on", self._name)
        else:
            if task.runnable:
                self.schedule(task)
