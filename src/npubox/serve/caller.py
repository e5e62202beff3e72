# SPDX-License-Identifier: Apache-2.0
"""The program's side of a call: its memory, its descriptors, its credentials.

A call is identified by a thread id, which the kernel may give to another process once the caller is
killed. So what was learnt by that number counts only if the call is found alive afterwards, and
nothing is written unless it was found alive just before (ids are given in turn: one that was alive a
millisecond ago is nobody else's). Source: the project's facts
(device-nodes.md §5, §6).
"""

from __future__ import annotations

import errno
import os
import re
from collections import OrderedDict
from time import monotonic_ns

from npubox.core import libc
from npubox.core.caller import CAP_SYS_ADMIN, INITIAL_USER_NAMESPACE
from npubox.core.usermem import ProcessMemory
from npubox.serve.listener import Call, Listener

LARGEST_COPY = 1 << 28  # bytes in one copy; the kernel's own allocations refuse more than 2 GiB
KEPT_TASKS = 128
STATUS_SIZE = 4096  # bytes; /proc/TID/status is shorter
JUST_BEFORE = 1_000_000  # ns
_SIGNALS = re.compile(rb"^SigPnd:\t(\w+)\nShdPnd:\t(\w+)\nSigBlk:\t(\w+)$", re.MULTILINE)
_window = libc.Window()


class CallerGone(OSError):  # noqa: N818 - what happened to the caller, nobody's mistake
    """The caller was killed: whatever the call was about to do, nobody waits for it."""

    def __init__(self) -> None:
        super().__init__(errno.ESRCH, "the caller is gone")


class CallMemory(ProcessMemory):
    """User memory of the caller of one call. For the supervisor's thread."""

    def __init__(self, listener: Listener, call: Call) -> None:
        self._pid = call.tid
        self._listener = listener
        self._id = call.id
        self._seen = 0

    def read(self, address: int, size: int) -> bytes:
        if size > LARGEST_COPY:
            raise OSError(errno.ENOMEM, f"{size} bytes are too many to copy from a program at once")
        data = _window.read(self._pid, address, size) if size <= _window.SIZE else None
        if data is None:
            try:
                data = super().read(address, size)
            finally:
                self._check_alive()
        else:
            self._check_alive()
        return data

    def write(self, address: int, data: bytes) -> None:
        if monotonic_ns() - self._seen > JUST_BEFORE:
            self._check_alive()
        if len(data) > _window.SIZE or not _window.write(self._pid, address, data):
            super().write(address, data)

    def _check_alive(self) -> None:
        if not self._listener.alive(self._id):
            raise CallerGone
        self._seen = monotonic_ns()


class Task:
    """A thread of a program, held by a descriptor that stays its own even when its id is given away."""

    def __init__(self, tid: int) -> None:
        self.tid = tid
        self._fds = os.open(f"/proc/{tid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.tgid = int(status_field(tid, "Tgid"))
        except OSError:
            os.close(self._fds)
            raise

    def link(self, fd: int) -> str:
        """The text of /proc/TID/fd/N. OSError ENOENT for a closed descriptor or a dead task."""
        return os.readlink(str(fd), dir_fd=self._fds)

    def close(self) -> None:
        os.close(self._fds)


class Tasks:
    """The threads that called lately."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[int, Task] = OrderedDict()

    def get(self, tid: int) -> Task:
        task = self._tasks.get(tid)
        if task is None:
            task = self._tasks[tid] = Task(tid)
            if len(self._tasks) > KEPT_TASKS:
                self._tasks.popitem(last=False)[1].close()
        return task

    def link(self, tid: int, fd: int) -> str | None:
        """The text of the descriptor's link, None if there is no such descriptor."""
        for attempt in (0, 1):
            try:
                return self.get(tid).link(fd)
            except OSError:
                # Either the descriptor is closed, or the id now belongs to a younger task.
                self.forget(tid)
                if attempt:
                    return None
        return None

    def forget(self, tid: int) -> None:
        task = self._tasks.pop(tid, None)
        if task is not None:
            task.close()

    def close(self) -> None:
        for tid in list(self._tasks):
            self.forget(tid)


def status_field(tid: int, name: str) -> str:
    """One line of /proc/TID/status. OSError if the task is gone."""
    with open(f"/proc/{tid}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith(f"{name}:"):
                return line.split(":", 1)[1].strip()
    raise OSError(errno.ESRCH, f"/proc/{tid}/status has no {name}")


def has_sys_admin(tid: int) -> bool:
    """Whether a task has CAP_SYS_ADMIN in the initial user namespace."""
    try:
        if os.readlink(f"/proc/{tid}/ns/user") != INITIAL_USER_NAMESPACE:
            return False
        return bool(int(status_field(tid, "CapEff"), 16) >> CAP_SYS_ADMIN & 1)
    except OSError:
        return False


def interrupting_signal(tid: int) -> int | None:
    """How a waiting call of `tid` is to end for a signal: the errno, None if there is none.

    ERESTARTSYS lets the kernel restart the call or not, by SA_RESTART, but only a signal that this
    thread is sure to take may cause it; EINTR is the answer for one that another thread may take.
    """
    try:
        with open(f"/proc/{tid}/status", "rb", buffering=0) as status:
            found = _SIGNALS.search(status.read(STATUS_SIZE))
        own, shared, blocked = (int(mask, 16) for mask in found.groups()) if found else (0, 0, 0)
        if own & ~blocked:
            return ERESTARTSYS
        if shared & ~blocked:
            return ERESTARTSYS if int(status_field(tid, "Tgid")) == tid else errno.EINTR
    except OSError:
        pass
    return None


ERESTARTSYS = 512
