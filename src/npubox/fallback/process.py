# SPDX-License-Identifier: Apache-2.0
"""A `npubox.fallback.worker` process, from the side of the one that asks."""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import signal
import subprocess
import sys
import weakref
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from npubox.errors import NpuboxError

MODULE = "npubox.fallback.worker"
PRINTED_BYTES = 4096  # of what a process printed, the end that is looked at


class CrashError(Exception):
    """The process is gone. The text says how: a signal's name, and what it printed last."""


class Process:
    """One worker, and the memory shared with it. It ends with `end`, with this object, and with this process
    however that ends. Serves one thread at a time."""

    def __init__(self) -> None:
        """Raises NpuboxError when it does not start."""
        try:
            with contextlib.ExitStack() as opened:
                self._start(opened)
                self._end = weakref.finalize(self, _end, self._process, opened.pop_all())
        except OSError as error:
            raise NpuboxError(
                f"no process can be started for CPU operators ({error.strerror}): free some memory, file"
                " descriptors or processes"
            ) from error
        _alive.add(self)
        try:
            self._receive()
        except CrashError as error:
            raise NpuboxError(
                f"the process for CPU operators does not start ({error}): is {sys.executable} the Python"
                " that npubox is installed in?"
            ) from error

    def _start(self, opened: contextlib.ExitStack) -> None:
        self._memory = os.memfd_create("npubox-cpu-operators")
        opened.callback(os.close, self._memory)
        self._printed = os.memfd_create("npubox-cpu-operators-stderr")
        opened.callback(os.close, self._printed)
        fcntl.fcntl(self._printed, fcntl.F_SETFL, os.O_APPEND)
        self._mapped: mmap.mmap | None = None
        self._channel: Connection
        self._channel, theirs = Pipe()
        opened.callback(self._channel.close)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE, str(theirs.fileno()), str(self._memory)],
                stdin=subprocess.PIPE,  # never written to: closes with this process
                stdout=self._printed,
                stderr=self._printed,
                pass_fds=(theirs.fileno(), self._memory),
                env={**environment(), "OPENBLAS_NUM_THREADS": "1"},  # numpy is there to copy
            )
        assert self._process.stdin is not None
        opened.callback(self._process.stdin.close)

    @property
    def alive(self) -> bool:
        return self._end.alive and self._process.poll() is None

    def memory(self, size: int) -> mmap.mmap:
        """The shared memory, at least `size` bytes of it. Arrays in what this gave before see the same bytes;
        each mapping keeps a file descriptor, hence few of them."""
        if self._mapped is None or len(self._mapped) < size:
            enough = 1 << max(size, mmap.PAGESIZE).bit_length()
            os.ftruncate(self._memory, enough)
            self._mapped = mmap.mmap(self._memory, enough)
        return self._mapped

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer. Raises CrashError when the process ends before it gives one."""
        try:
            self._channel.send_bytes(json.dumps(request).encode())
        except OSError:
            raise self._crashed() from None
        except BaseException:
            self.end()
            raise
        return self._receive()

    def _receive(self) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = json.loads(self._channel.recv_bytes())
        except (EOFError, OSError):
            raise self._crashed() from None
        except BaseException:  # an interrupt, say: the next answer would be the one to this request
            self.end()
            raise
        return answer

    def _crashed(self) -> CrashError:
        status = self._process.wait()
        size = os.fstat(self._printed).st_size
        text = os.pread(self._printed, PRINTED_BYTES, max(0, size - PRINTED_BYTES)).decode("utf-8", "replace")
        self.end()
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        printed = [line.strip() for line in text.splitlines() if line.strip() and line[:5] != "INFO:"]
        return CrashError(f"{how}: {printed[-1]}" if printed else how)

    def kill(self) -> None:
        """Have it die, whatever it is doing. Any thread may call it; `ask` raises CrashError in its own."""
        if self._end.alive:
            self._process.kill()

    def end(self) -> None:
        """End it, whatever it is doing, and let go of everything."""
        self._end()

    def leave(self) -> None:
        """In a forked child: let go of what is the parent's."""
        ended = self._end.detach()
        if ended is not None:
            ended[2][1].close()


def environment() -> dict[str, str]:
    """This process's, in which Python finds the modules that this one does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _end(process: subprocess.Popen[bytes], opened: contextlib.ExitStack) -> None:
    process.kill()
    process.wait()
    opened.close()


_alive: weakref.WeakSet[Process] = weakref.WeakSet()


def _leave_all() -> None:
    for process in list(_alive):
        process.leave()


os.register_at_fork(after_in_child=_leave_all)
