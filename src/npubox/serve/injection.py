# SPDX-License-Identifier: Apache-2.0
"""Mappings that the kernel would not make by itself: the blocked thread is led to make another mmap.

A supervisor cannot map into another process. So the thread gets a descriptor of the right file, its call is
answered, and before it is back in its program it is stopped, made to call mmap and close, and let go with the
address as its result. Source: the project's facts (device-nodes.md §5).
"""

from __future__ import annotations

import contextlib
import copy
import errno
import os
import select
import signal
import time
from collections.abc import Callable, Mapping

from npubox.serve import linux, ptrace
from npubox.serve.caller import CallerGone, status_field
from npubox.serve.listener import Call, Listener
from npubox.serve.ptrace import Registers
from npubox.serve.syscalls import Arch

PATIENCE = 10.0  # seconds for a thread that the host may be slow to run
INTERVAL = 20e-6  # seconds between two looks at a thread that is about to stop
RESTARTS = frozenset((1 << 64) - error for error in (512, 513, 514, 516))
"""What the kernel returns inside of itself for a call that a signal has interrupted (ERESTARTSYS and its
kin)."""

_SystemCall = tuple[int, Mapping[int, int]]


class Injector:
    """`later` takes the calls of other threads that arrive meanwhile, to be handled when the mapping is
    made."""

    def __init__(self, listener: Listener, arch: Arch, later: Callable[[Call], None]) -> None:
        self._listener = listener
        self._mmap, self._close = arch.numbers["mmap"], arch.numbers["close"]
        self._later = later
        self._poll = select.poll()
        self._poll.register(listener.fd, select.POLLIN)

    def map(self, call: Call, fd: int, prot: int, offset: int) -> None:
        """Answer an mmap call with a mapping of our `fd` at `offset` in its place, with the caller's address,
        length and flags. OSError ENOMEM where the thread cannot be stopped, as it is traced already;
        EMFILE."""
        try:
            ptrace.request(ptrace.SEIZE, call.tid, ptrace.O_TRACESYSGOOD)
        except OSError as error:
            raise OSError(errno.ENOMEM, f"the caller cannot be stopped: {error.strerror}") from error
        thread = _Stopped(call.tid, self._wait)
        # From here on the call has to be answered, as a thread that waits for its answer cannot be let go.
        try:
            number = self._listener.add_fd(call.id, fd, True, answer=False)
        except OSError as error:
            ptrace.request(ptrace.INTERRUPT, call.tid)
            self._listener.fail(call.id, error.errno or errno.EMFILE)
            thread.abandon()
            return
        ptrace.request(ptrace.INTERRUPT, call.tid)
        if number is None or not self._listener.answer(call.id, 0):
            raise CallerGone
        mapping = dict(enumerate(call.args)) | {2: prot, 4: number, 5: offset}
        thread.call((self._mmap, mapping), (self._close, {0: number}))

    def _wait(self, tid: int) -> int:
        """The next stop of the thread, as its wait status, while its own calls pass and others' are put
        off."""
        deadline = time.monotonic() + PATIENCE
        while True:
            status = _stop_of(tid)
            if status is not None:
                return status
            if self._poll.poll(0):
                self._receive(tid)
            elif time.monotonic() > deadline:
                raise OSError(errno.EIO, f"thread {tid} does not stop")
            else:
                time.sleep(INTERVAL)  # not only a yield: the thread may have to run on this CPU

    def _receive(self, tid: int) -> None:
        call = self._listener.receive()
        if call is None:
            return
        if call.tid == tid:
            self._listener.proceed(call.id)
        else:
            self._later(call)


class _Stopped:
    """A seized thread, from its first stop to its release. Signals that arrive meanwhile are sent again."""

    def __init__(self, tid: int, wait: Callable[[int], int]) -> None:
        self._tid = tid
        self._wait = wait
        self._signals: list[int] = []

    def call(self, wanted: _SystemCall, *then: _SystemCall) -> None:
        """The thread is about to return from a system call: it makes others, each a number with arguments,
        and returns with the result of the first."""
        try:
            self._until_stopped()
            saved = ptrace.get_registers(self._tid)
            result = self._call(saved, wanted)
            for other in then:
                self._call(saved, other)
            saved.returned(result)
            ptrace.set_registers(self._tid, saved)
        except ProcessLookupError:
            raise CallerGone from None
        finally:
            self._let_go()

    def abandon(self) -> None:
        """Let a thread go whose call has failed."""
        try:
            self._until_stopped()
        finally:
            self._let_go()

    def _call(self, saved: Registers, wanted: _SystemCall) -> int:
        """One system call of the thread's, by the instruction that it has just passed; what it returned. A
        signal may send it round again, as it would by itself."""
        while (result := self._call_once(saved, wanted)) in RESTARTS:
            pass
        return result

    def _call_once(self, saved: Registers, wanted: _SystemCall) -> int:
        registers = copy.copy(saved)
        registers.again(*wanted)
        ptrace.set_registers(self._tid, registers)
        for _ in ("entry", "exit"):
            ptrace.request(ptrace.SYSCALL, self._tid)
            while os.WSTOPSIG(status := self._stop()) != ptrace.SYSCALL_STOP:
                self._remember(status)
                ptrace.request(ptrace.SYSCALL, self._tid)
        return ptrace.get_registers(self._tid).result

    def _until_stopped(self) -> None:
        self._remember(self._stop())

    def _stop(self) -> int:
        return self._wait(self._tid)

    def _remember(self, status: int) -> None:
        """A stop for a signal that was to be delivered, not for our own sake."""
        if not status >> 16 and os.WSTOPSIG(status) != signal.SIGTRAP:
            self._signals.append(os.WSTOPSIG(status))

    def _let_go(self) -> None:
        with contextlib.suppress(OSError):
            ptrace.request(ptrace.DETACH, self._tid)
        for number in self._signals:
            with contextlib.suppress(OSError):
                linux.send_to_thread(self._tid, number)


def _stop_of(tid: int) -> int | None:
    """The wait status of a stop of the thread, None if it runs. CallerGone if it has died."""
    options = os.WEXITED | os.WSTOPPED | os.WNOHANG | ptrace.WALL
    try:
        seen = os.waitid(os.P_PID, tid, options | os.WNOWAIT)
        if seen is None:
            return None
        if seen.si_code not in (os.CLD_EXITED, os.CLD_KILLED, os.CLD_DUMPED):
            return os.waitpid(tid, ptrace.WALL)[1]
        if status_field(tid, "PPid") != str(os.getpid()):  # its parent hears of it when its tracer has
            os.waitpid(tid, ptrace.WALL)
    except ChildProcessError:
        pass
    raise CallerGone
