# SPDX-License-Identifier: Apache-2.0
"""Lifetimes: a thing lives while something uses it, whatever is closed first.

The uses are counted here rather than left to the garbage collector, because freeing is an ioctl: a
collection may start on a thread that holds a driver's lock, and must not call that driver.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from npubox.errors import NpuboxError


class Uses:
    """Counts the uses of one thing; `free` runs once, on the thread that drops the last use."""

    def __init__(self, free: Callable[[], None]) -> None:
        self._free = free
        self._count = 1
        self._lock = threading.Lock()

    def hold(self) -> None:
        with self._lock:
            if not self._count:
                raise NpuboxError("this object was closed; open or load it again")
            self._count += 1

    def drop(self) -> None:
        with self._lock:
            self._count -= 1
            last = self._count == 0
        if last:
            self._free()


class Closable:
    """A public object that holds one use of something until it is closed; closing twice is fine.

    One that is left to the garbage collector lets go of its use on a thread of our own.
    """

    _kind = "object"

    def __init__(self, uses: Uses) -> None:
        self._uses = uses
        self._closed = False
        self._close_lock = threading.Lock()

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Let go. What still uses the same thing (a running inference, say) keeps it alive."""
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
        self._release()

    def _release(self) -> None:
        self._uses.drop()

    def _check_open(self) -> None:
        if self._closed:
            raise NpuboxError(f"this {self._kind} was closed; open or load it again")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self._closed = True
            _reaper.take(self._uses.drop)


class _Reaper:
    """Frees what was left open, on one daemon thread that starts with the first such object."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._started = False

    def take(self, free: Callable[[], None]) -> None:
        self._work.put(free)  # SimpleQueue.put is reentrant: safe from a finaliser

    def start(self) -> None:
        if not self._started:
            self._started = True
            threading.Thread(target=self._run, name="npubox-client-reaper", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self._work.get()()
            except Exception as error:  # told as an uncaught one is, and the rest is freed all the same
                told = (type(error), error, error.__traceback__, threading.current_thread())
                threading.excepthook(threading.ExceptHookArgs(told))


_reaper = _Reaper()
start_reaper = _reaper.start
