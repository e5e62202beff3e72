# SPDX-License-Identifier: Apache-2.0
"""The process that people see of a launch: it stands for the program.

It passes on the signals that are meant for the program, stops and continues with it, and ends as it
ends. Signals from the terminal reach the program by themselves.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import struct
import sys

from npubox.serve import linux

SI_KERNEL = 128
_SIGINFO = struct.Struct("<IiiII")  # signo, errno, code, pid, uid
_SIGINFO_SIZE = 128
_KEPT = frozenset(
    {
        signal.SIGKILL,
        signal.SIGSTOP,
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGTRAP,
    }
)
SIGNALS = frozenset(number for number in signal.valid_signals() if number not in _KEPT)


class Front:
    """`channel` tells the program's "pid", then each time it "stopped", and the status it "ended" with."""

    def __init__(self, channel: socket.socket, supervisor: int) -> None:
        self._channel = channel
        self._supervisor = supervisor
        self._program: int | None = None
        self._early: list[int] = []
        self._reaped: dict[int, int] = {}

    def run(self) -> int:
        """Wait for the program; its exit code. Does not return where a signal killed it."""
        with contextlib.suppress(OSError):
            linux.become_subreaper()
        signals = linux.signal_descriptor(SIGNALS)
        poll = select.poll()
        poll.register(signals, select.POLLIN)
        poll.register(self._channel, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if self._channel.fileno() in ready:
                data = self._channel.recv(4096)
                if not data:
                    return self._supervisor_died()
                status = self._hear(*data.decode().split())
                if status is not None:
                    return end_as(status)
            if signals in ready:
                info = os.read(signals, _SIGINFO_SIZE)
                self._signalled(*_SIGINFO.unpack_from(info))

    def _hear(self, what: str, value: str) -> int | None:
        match what:
            case "pid":
                self._program = int(value)
                for number in self._early:
                    self._pass_on(number)
            case "stopped":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "ended":
                return int(value)
        return None

    def _signalled(self, number: int, _error: int, code: int, sender: int, _uid: int) -> None:
        if number == signal.SIGCHLD:
            self._reap(os.WNOHANG)
            return
        from_outside = code != SI_KERNEL and sender not in (self._program, self._supervisor)
        if number == signal.SIGCONT or from_outside:
            self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        if self._program is None:
            self._early.append(number)
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._program, number)

    def _supervisor_died(self) -> int:
        """The program is our own child now. Its calls on nodes fail; how it ends is still its own."""
        print("npubox: the supervisor died: calls on device nodes fail with ENOSYS", file=sys.stderr)
        if self._program is None:
            return 1
        while self._program not in self._reaped:
            self._reap(0)
        return end_as(self._reaped[self._program])

    def _reap(self, options: int) -> None:
        """Orphans of the program come to us, so that it can be waited for should the supervisor die."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, options)
                if not pid:
                    return
                self._reaped[pid] = status
                if pid == self._program:
                    return


def end_as(status: int) -> int:
    """The exit code of a wait status; a program killed by a signal takes us with it."""
    if not os.WIFSIGNALED(status):
        return os.WEXITSTATUS(status)
    number = os.WTERMSIG(status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    return 128 + number
