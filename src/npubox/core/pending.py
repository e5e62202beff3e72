# SPDX-License-Identifier: Apache-2.0
"""A call that blocks: what it waits for, until when, and what it answers.

The core does not know how the call travelled. In process the calling thread sleeps on it
(`npubox.core.node`); a supervisor keeps it in a table and goes on serving. Deadlines are absolute
CLOCK_MONOTONIC nanoseconds, the program's time, never device time.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol


class Completion(Protocol):
    """Something that happens once: a fence, a firmware's reply."""

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call `callback` when it happens; False, and no call ever, if it already has."""

    def remove_callback(self, callback: Callable[[], None]) -> bool:
        """Take a callback back; False if it ran, runs or was never added."""


class Pending:
    """Waits for all of `completions`, or `deadline`, or `cancel`, whichever comes first, once.

    `deadline` None waits for ever; the answer is then `result`, which a finishing step may set, or OSError
    `timeout_errno`, which 0 makes no error. `lend`, if set, takes a thread that would sleep until the
    deadline it is given, and says whether it had a use for it.
    """

    def __init__(
        self, completions: Iterable[Completion], deadline: int | None = None, timeout_errno: int = errno.ETIME
    ) -> None:
        self.lend: Callable[[int | None], bool] | None = None
        self.deadline = deadline
        self.timeout_errno = timeout_errno
        self.result = 0
        self._guard = threading.Lock()
        self._error: int | None = None
        self._done_callbacks: list[Callable[[], None]] = []
        self._finishers: list[Callable[[OSError | None], None]] = []
        self._completions = list(completions)
        self._missing = 1 + len(self._completions)
        for completion in self._completions:
            if not completion.add_callback(self._one_done):
                self._one_done()
        self._one_done()

    @property
    def done(self) -> bool:
        with self._guard:
            return self._error is not None

    def on_done(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when the wait is over, at once if it is. It must not block."""
        with self._guard:
            if self._error is None:
                self._done_callbacks.append(callback)
                return
        callback()

    def on_finish(self, step: Callable[[OSError | None], None]) -> None:
        """Run `step` with the call's error, or None, before it is answered; its own OSError replaces it."""
        self._finishers.append(step)

    def expire(self) -> None:
        """The deadline has passed."""
        self._settle(self.timeout_errno)

    def cancel(self, error: int = errno.EINTR) -> None:
        """Give the wait up: the caller died or was interrupted, or the device is gone."""
        self._settle(error)

    def finish(self) -> int:
        """The answer of a wait that is done, after copying out; called once by whoever carries the call."""
        with self._guard:
            if self._error is None:
                raise RuntimeError("finish() on a wait that is not over")
            error = OSError(self._error, os.strerror(self._error)) if self._error else None
        for step in self._finishers:
            step(error)
        if error is not None:
            raise error
        return self.result

    def wait(self) -> int:
        """Block the calling thread until the wait is over, then `finish`. A signal handler may raise."""
        try:
            while self._may_lend() and self.lend is not None and self.lend(self.deadline):
                pass
            wake = threading.Event()
            self.on_done(wake.set)
            while not wake.is_set():
                if self.deadline is None:
                    wake.wait()
                elif (left := self.deadline - time.monotonic_ns()) <= 0:
                    self.expire()
                else:
                    wake.wait(min(left / 1e9, threading.TIMEOUT_MAX))
        except BaseException:
            self.cancel()
            raise
        return self.finish()

    def _may_lend(self) -> bool:
        return self._error is None and (self.deadline is None or time.monotonic_ns() < self.deadline)

    def _one_done(self) -> None:
        with self._guard:
            self._missing -= 1
            if self._missing:
                return
        self._settle(0)

    def _settle(self, error: int) -> None:
        with self._guard:
            if self._error is not None:
                return
            self._error = error
            callbacks, self._done_callbacks = self._done_callbacks, []
            completions, self._completions = self._completions, []
        if error:
            for completion in completions:
                completion.remove_callback(self._one_done)
        for callback in callbacks:
            callback()


class FirstOf:
    """A `Completion` that happens with the first of some others, for one who waits."""

    def __init__(self, completions: Iterable[Completion]) -> None:
        self._completions = list(completions)
        self._guard = threading.Lock()
        self._callback: Callable[[], None] | None = None

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self._callback = callback
        for completion in self._completions:
            if not completion.add_callback(self._happened):
                # Unless another one has come first, and has called.
                return not self.remove_callback(callback)
        return True

    def remove_callback(self, callback: Callable[[], None]) -> bool:
        return self._take() is not None

    def _happened(self) -> None:
        callback = self._take()
        if callback is not None:
            callback()

    def _take(self) -> Callable[[], None] | None:
        with self._guard:
            callback, self._callback = self._callback, None
        for completion in self._completions:
            completion.remove_callback(self._happened)
        return callback
