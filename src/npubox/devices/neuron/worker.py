# SPDX-License-Identifier: Apache-2.0
"""The threads on which a chip's queues move data, and the device time that it takes."""

from __future__ import annotations

import logging
import queue
import threading
from typing import Protocol

from npubox.bus.virtual import VirtualClock

_log = logging.getLogger(__name__)
_working = threading.local()


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
        self._ready: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
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
        self._ready.put(task)

    def lend(self) -> bool:
        """Run a slice on the calling thread, unless one is running. Whether it did."""
        if not self._turn.acquire(blocking=False):
            return False
        try:
            task = self._ready.get_nowait()
            if task is None:
                self._ready.put(None)  # it is our thread's to see
                return False
            self._slice(task)
            return True
        except queue.Empty:
            return False
        finally:
            self._end_turn()

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
        self._ready.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while (task := self._ready.get()) is not None:
            with self._turn:
                self._slice(task)
            self._announce_end()

    def _slice(self, task: Task) -> None:
        """With the turn."""
        _working.now = True
        try:
            if not self._closed:
                with self._guard:
                    self._queued.discard(task)
                self._work(task)
        finally:
            _working.now = False
            self._clock.end_work()

    def _end_turn(self) -> None:
        self._turn.release()
        self._announce_end()

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
