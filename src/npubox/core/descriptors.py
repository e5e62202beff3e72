# SPDX-License-Identifier: Apache-2.0
"""Descriptors of open files in this process: the numbers that handlers give to, and get from, our own calls.

Each number is reserved by a real descriptor, so it is never a file of somebody else's; behind a completion
it is the read end of a pipe, which polls as the ABI says. Who is done with a number adopts it and closes
that (`npubox.core.node.adopt`); a number that was closed behind our back is let go when it is next looked
at.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from dataclasses import dataclass

from npubox.core import reaper
from npubox.core.caller import Caller
from npubox.core.file import Backing, Mapped, OpenFile, SignalStandIn
from npubox.core.signal_pipe import SignalPipe

_guard = threading.Lock()


class Description:
    """Counts what needs an open file in this process: descriptors, mappings, calls in progress. Of each file
    there is one; with the last use it is released."""

    def __init__(self, file: OpenFile) -> None:
        self.file = file
        self._uses = 0
        self._mapping = threading.Lock()
        self._mappings: Counter[int] = Counter()

    def get(self) -> None:
        with _guard:
            self._uses += 1

    def put(self) -> None:
        with _guard:
            self._uses -= 1
            last = not self._uses
            if last:
                del _descriptions[self.file]
        if last:
            self.file.release()

    def mmap(self, length: int, prot: int, flags: int, offset: int, caller: Caller) -> Backing:
        """As `OpenFile.mmap`, and count the mapping; it ends with `unmap`."""
        with self._mapping:
            backing = self.file.mmap(length, prot, flags, offset, caller)
            self._mappings[offset] += 1
        self.get()
        return backing

    def unmap(self, offset: int) -> None:
        with self._mapping:
            self._mappings[offset] -= 1
            if not self._mappings[offset]:
                del self._mappings[offset]
                if isinstance(self.file, Mapped):
                    self.file.unmapped(offset)
        self.put()


_descriptions: dict[OpenFile, Description] = {}


def describe(file: OpenFile) -> Description:
    """The description of a file, with one more use for the caller to put."""
    with _guard:
        description = _descriptions.get(file)
        if description is None:
            description = _descriptions[file] = Description(file)
            file.installed()
        description._uses += 1
    return description


@dataclass(frozen=True, eq=False)
class Entry:
    """What a number stands for, and by what its reserving descriptor is known."""

    description: Description
    flags: int
    identity: tuple[int, int]
    pipe: SignalPipe | None


_table: dict[int, Entry] = {}
_taken: set[Entry] = set()


class OwnDescriptors:
    """The `Descriptors` of this process."""

    def install(self, file: OpenFile, flags: int) -> int:
        stand_in = file.stand_in
        pipe = SignalPipe(stand_in.completion) if isinstance(stand_in, SignalStandIn) else None
        number = os.memfd_create("npubox-file", os.MFD_CLOEXEC) if pipe is None else pipe.reader
        os.set_inheritable(number, not flags & os.O_CLOEXEC)
        entry = Entry(describe(file), flags, _identity(number), pipe)
        with _guard:
            stale = _table.pop(number, None)
            _table[number] = entry
        if stale is not None:  # a handler calls this with its device's lock held, which releasing takes
            reaper.start()
            reaper.post(lambda: _let_go(stale))
        return number

    def lookup(self, fd: int) -> OpenFile | None:
        identity = _identity(fd)
        with _guard:
            entry = _table.get(fd)
        return entry.description.file if entry is not None and entry.identity == identity else None

    def duplicate(self, fd: int) -> int:
        return os.dup(fd)


def take(fd: int) -> Entry:
    """What an installed number stands for. It is the taker's to let go, and calls still find it. OSError
    EBADF if it is none of ours, or taken."""
    identity = _identity(fd)
    with _guard:
        entry = _table.get(fd)
        ours = entry is not None and entry.identity == identity and entry not in _taken
        if ours:
            assert entry is not None
            _taken.add(entry)
    if entry is None or not ours:
        raise OSError(errno.EBADF, f"descriptor {fd} is none that an ioctl of this process gave")
    return entry


def let_go(fd: int, entry: Entry) -> None:
    """Close what `take` gave; nothing, if the number was closed behind our back and given again."""
    with _guard:
        _taken.discard(entry)
        ours = _table.get(fd) is entry
        if ours:
            del _table[fd]
    if ours:
        os.close(fd)
        _let_go(entry)


def _let_go(entry: Entry) -> None:
    if entry.pipe is not None:
        entry.pipe.close()
    entry.description.put()


def _identity(fd: int) -> tuple[int, int]:
    about = os.fstat(fd)
    return about.st_dev, about.st_ino
