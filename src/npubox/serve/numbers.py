# SPDX-License-Identifier: Apache-2.0
"""Which descriptor numbers served files get.

The filter sees numbers, not files. Served files with numbers that hardly anybody else has let every
program's fstat, read, write and lseek pass, a hundred of them in the start of a Python, and still be
answered where the file is ours. The price: open does not give the lowest free number, and a copy that a
program makes at a low number (dup2, SCM_RIGHTS) answers those calls as a file. Measured: docs/exec.md.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator

from npubox.serve.bpf import F_DUPFD, F_DUPFD_CLOEXEC, HIGHEST_NUMBER, LOWEST_NUMBER
from npubox.serve.caller import Tasks
from npubox.serve.linux import fetch_descriptor
from npubox.serve.listener import Call, Listener
from npubox.serve.open_files import Served
from npubox.serve.path_calls import signed
from npubox.serve.supervisor import ANSWERED, PROCEED, Handler, Result

IN_ORDER, AT_RANDOM = 15, 16
SPREAD = 197


class Numbers:
    """Passes descriptors on to callers. With `lowest` the kernel picks the lowest free numbers, as ever."""

    def __init__(self, listener: Listener, lowest: bool) -> None:
        self._listener = listener
        self._lowest = lowest

    def add(self, call: Call, fd: int, cloexec: bool, *, answer: bool) -> int | None:
        """A new descriptor of the caller's for our `fd`, with which the call is answered or goes on.

        Its number, None if the caller is gone; OSError where it can have none (EMFILE).
        """
        number = None if self._lowest else free_number(call)
        return self._listener.add_fd(call.id, fd, cloexec, answer=answer, number=number)


class CopyCalls:
    """dup and F_DUPFD: a copy of a served file is to be told from others as its original is.

    `find` gives the open file behind a descriptor of a thread, None for one that is not ours.
    """

    def __init__(self, listener: Listener, tasks: Tasks, find: Callable[[int, int], Served | None]) -> None:
        self._listener = listener
        self._tasks = tasks
        self._find = find

    def table(self) -> dict[str, Handler]:
        return {"dup": lambda call: self._copy(call, False, 0), "fcntl": self._fcntl}

    def _fcntl(self, call: Call) -> Result:
        command = call.args[1] & 0xFFFF_FFFF
        if command not in (F_DUPFD, F_DUPFD_CLOEXEC):
            return PROCEED
        return self._copy(call, command == F_DUPFD_CLOEXEC, call.args[2])

    def _copy(self, call: Call, cloexec: bool, least: int) -> Result:
        number = None if self._find(call.tid, call.args[0]) is None else free_number(call, least)
        if number is None:
            return PROCEED
        try:
            fd = fetch_descriptor(self._tasks.get(call.tid).tgid, signed(call.args[0]))
        except OSError:
            return PROCEED
        try:
            self._listener.add_fd(call.id, fd, cloexec, answer=True, number=number)
        finally:
            os.close(fd)
        return ANSWERED


def free_number(call: Call, least: int = 0) -> int | None:
    """A number of ours from `least` on that is free in the caller; None if none was found.

    High ones first, for the sake of whoever opens a file at this very moment and gets the lowest.
    """
    try:
        limit, _ = resource.prlimit(call.tid, resource.RLIMIT_NOFILE)
    except OSError:
        limit = HIGHEST_NUMBER + 1
    last = HIGHEST_NUMBER if limit == resource.RLIM_INFINITY else min(limit - 1, HIGHEST_NUMBER)
    first = max(least, LOWEST_NUMBER)
    for number in _candidates(first, last, call.id):
        try:
            os.lstat(f"/proc/{call.tid}/fd/{number}")
        except FileNotFoundError:
            return number
        except OSError:
            return None
    return None


def _candidates(first: int, last: int, seed: int) -> Iterator[int]:
    """The highest few, then some anywhere."""
    yield from range(last, max(first, last - IN_ORDER) - 1, -1)
    for step in range(IN_ORDER, IN_ORDER + AT_RANDOM if last >= first else 0):
        yield first + (seed * SPREAD + step * SPREAD) % (last - first + 1)
