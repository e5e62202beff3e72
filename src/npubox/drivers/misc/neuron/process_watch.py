# SPDX-License-Identifier: Apache-2.0
"""Tells when a process has died, even while others still hold what it opened."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)


class ProcessWatch:
    """Watches processes by pidfd, on a thread that starts with the first that is not our own."""

    def __init__(self, died: Callable[[int], None]) -> None:
        """`died` is called with the process id, on the watch's thread."""
        self._died = died
        self._guard = threading.Lock()
        self._processes: dict[int, int] = {}
        self._poll = select.epoll()
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC)
        self._poll.register(self._wake, select.EPOLLIN)
        self._thread: threading.Thread | None = None

    def add(self, pid: int) -> None:
        """Watch a process, once. Our own needs no watching."""
        with self._guard:
            if pid == os.getpid() or pid in self._processes.values():
                return
            try:
                fd = os.pidfd_open(pid)
            except OSError as error:
                _log.info("process %d is not watched: %s", pid, error.strerror)
                return
            self._processes[fd] = pid
            self._poll.register(fd, select.EPOLLIN)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="npubox-neuron-watch", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        os.close(self._waker)
        if self._thread is not None:
            self._thread.join()
        self._poll.close()
        os.close(self._wake)
        for fd in self._processes:
            os.close(fd)

    def _run(self) -> None:
        while True:
            for fd, _ in self._poll.poll():
                if fd == self._wake:
                    return
                with self._guard:
                    pid = self._processes.pop(fd)
                    self._poll.unregister(fd)
                    os.close(fd)
                self._died(pid)
