# SPDX-License-Identifier: Apache-2.0
"""Following the system calls of a program as the kernel carries them out, by ptrace: for nodes not ours.

Nothing is answered or changed here. Every thread and child is followed, which costs each system call two
stops; a program that somebody else traces cannot be followed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, Protocol

from npubox.errors import DeviceError
from npubox.serve import ptrace
from npubox.serve.launch import NOT_EXECUTABLE, NOT_FOUND
from npubox.serve.syscalls import native

STOPPING = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


class Watch(Protocol):
    """Who wants to hear of calls; the thread is stopped meanwhile."""

    def entered(self, tid: int, number: int, args: tuple[int, ...]) -> Any:
        """A call begins. What is returned, unless None, comes back when it ends."""

    def left(self, what: Any, result: int) -> None:
        """The call has ended with a value or a negative errno; ERESTARTSYS and its like: it begins anew."""


def follow(command: Sequence[str], watch: Watch) -> int:
    """Run a program to its end and its children's; its wait status. DeviceError where it cannot be traced."""
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go)
        os.read(ready, 1)
        _become(command)
    os.close(ready)
    try:
        ptrace.request(ptrace.SEIZE, pid, ptrace.O_TRACESYSGOOD | ptrace.O_FOLLOW)
        ptrace.request(ptrace.INTERRUPT, pid)
    except OSError as error:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise DeviceError(f"{command[0]} cannot be traced here: {error.strerror}") from error
    finally:
        os.close(go)
    for number in (signal.SIGINT, signal.SIGQUIT):  # of the terminal: the program has them itself
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
    return _Followed(pid, watch).run()


def _become(command: Sequence[str]) -> None:
    code = NOT_EXECUTABLE
    try:
        os.execvp(command[0], list(command))
    except FileNotFoundError:
        code = NOT_FOUND
        print(f"npubox: {command[0]} was not found", file=sys.stderr, flush=True)
    except OSError as error:
        print(f"npubox: {command[0]} cannot be executed: {error.strerror}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


class _Followed:
    """The threads that are followed, each with the call it is in."""

    def __init__(self, pid: int, watch: Watch) -> None:
        self._pid = pid
        self._watch = watch
        self._calls: dict[int, Any] = {}
        self._audit = native().audit

    def run(self) -> int:
        end = 0
        while True:
            try:
                tid, status = os.waitpid(-1, ptrace.WALL)
            except ChildProcessError:
                return end
            if os.WIFSTOPPED(status):
                self._stopped(tid, status)
                continue
            self._calls.pop(tid, None)
            if tid == self._pid:
                end = status

    def _stopped(self, tid: int, status: int) -> None:
        number, event = os.WSTOPSIG(status), status >> 16
        try:
            if number == ptrace.SYSCALL_STOP:
                self._at_call(tid)
            if event == ptrace.EVENT_STOP and number in STOPPING:
                ptrace.request(ptrace.LISTEN, tid)
            else:
                for_us = event or number == ptrace.SYSCALL_STOP
                ptrace.request(ptrace.SYSCALL, tid, 0 if for_us else number)
        except ProcessLookupError:
            pass  # killed meanwhile; waitpid tells

    def _at_call(self, tid: int) -> None:
        stop = ptrace.syscall_stop(tid)
        if isinstance(stop, ptrace.Entry) and stop.arch == self._audit:
            self._calls[tid] = self._watch.entered(tid, stop.number, stop.args)
        elif isinstance(stop, ptrace.Exit):
            what = self._calls.pop(tid, None)
            if what is not None:
                self._watch.left(what, stop.result)
