# SPDX-License-Identifier: Apache-2.0
"""CRWL: the cooperative reader/writer lock of a core, and marks on cores (facts, neuron.md §10.4, §10.5).

A lock says which model, by a 32-byte uuid, is on a core and who put it there.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable

from npubox.core.pending import Pending
from npubox.drivers.misc.neuron.work import Once
from npubox.uapi.neuron import NC_SLOTS

READER_PATIENCE = 50_001 * 15_000  # ns: the module tries that often, 10 to 20 us apart
WRITER_PATIENCE = 200_001 * 15_000


class _Waiter(Once):
    """Somebody who waits for a lock."""

    def __init__(self, attempt: Callable[[], bool]) -> None:
        super().__init__()
        self.attempt = attempt


class CoreLock:
    """Guarded by the driver's lock. Every method raises OSError with the module's errno."""

    def __init__(self) -> None:
        self._uuid = bytes(32)
        self.writer = 0
        self._held = False
        self._readers = 0
        self._waiters: list[_Waiter] = []

    def enter_reader(self, pid: int, uuid: bytes) -> Pending | None:
        """ENOENT for another model or another process's, EBUSY while somebody writes."""

        def attempt() -> bool:
            if self._held:
                return False
            self._check(pid, uuid)
            self._readers += 1
            return True

        return self._wait(attempt, READER_PATIENCE)

    def exit_reader(self, pid: int, uuid: bytes) -> None:
        """ENOENT, EINVAL when there are no readers."""
        self._check(pid, uuid)
        if not self._readers:
            raise OSError(errno.EINVAL, "the core has no readers")
        self._readers -= 1
        self._changed()

    def enter_writer(self, pid: int, uuid: bytes) -> Pending | None:
        """EBUSY while there are readers or a writer. EALREADY where this process's model is already on
        the core; the lock is taken then all the same."""

        def attempt() -> bool:
            if self._held or self._readers:
                return False
            known = (self.writer, self._uuid) == (pid, uuid)
            self.writer, self._uuid, self._held = pid, uuid, True
            if known:
                raise OSError(errno.EALREADY, "this model is on the core already")
            return True

        return self._wait(attempt, WRITER_PATIENCE)

    def downgrade(self, pid: int, uuid: bytes) -> None:
        """The writer becomes the only reader. EINVAL, ENOENT."""
        if not self._held:
            raise OSError(errno.EINVAL, "nobody writes to the core")
        self._check(pid, uuid)
        self._held = False
        self._readers = 1
        self._changed()

    def release(self, pid: int) -> None:
        """A process is gone: what it put on the core is too."""
        if self.writer == pid:
            self._uuid, self.writer, self._held, self._readers = bytes(32), 0, False, 0
            self._changed()

    @property
    def locked(self) -> bool:
        return self._held or self._readers > 0

    @property
    def uuid(self) -> bytes:
        return self._uuid

    def _check(self, pid: int, uuid: bytes) -> None:
        if (self.writer, self._uuid) != (pid, uuid):
            raise OSError(errno.ENOENT, "that model is not on the core, or another process put it there")

    def _wait(self, attempt: Callable[[], bool], patience: int) -> Pending | None:
        if attempt():
            return None
        outcome: list[OSError] = []
        waiter = _Waiter(lambda: _settled(attempt, outcome))
        pending = Pending([waiter], time.monotonic_ns() + patience, errno.EBUSY)
        pending.on_finish(lambda error: self._finish(waiter, outcome))
        self._waiters.append(waiter)
        return pending

    def _finish(self, waiter: _Waiter, outcome: list[OSError]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        if outcome:
            raise outcome[0]

    def _changed(self) -> None:
        for waiter in list(self._waiters):
            if not waiter.wanted or waiter.attempt():
                self._waiters.remove(waiter)
                waiter.happen()


def _settled(attempt: Callable[[], bool], outcome: list[OSError]) -> bool:
    try:
        return attempt()
    except OSError as error:
        outcome.append(error)
        return True


class CoreMarks:
    """Which process has marked which cores of the system: 512 slots. Guarded by the driver's lock."""

    def __init__(self) -> None:
        self._owners = [0] * NC_SLOTS

    def owner(self, slot: int) -> int:
        """The process id that has a slot, 0 for none."""
        return self._owners[slot]

    def mark(self, pid: int, count: int, start: int, end: int) -> tuple[list[int], int]:
        """Mark the first `count` free slots in a row in [start, end]: them, or none and how many there are
        at most. OSError EINVAL for a range that is none."""
        if start > end or end >= NC_SLOTS:
            raise OSError(errno.EINVAL, f"cores {start} to {end} are no range")
        most, slot = 0, start
        while slot <= end:
            run = 0
            while run < count and slot + run <= end and not self._owners[slot + run]:
                run += 1
            if run == count:
                found = list(range(slot, slot + count))
                for each in found:
                    self._owners[each] = pid
                return found, most
            most = max(most, run)
            # Behind a free run the module goes on two slots after the one that blocks.
            slot += run + (2 if run else 1)
        return [], most

    def unmark(self, pid: int, slots: list[int]) -> list[int]:
        """Slots of other processes stay marked: those that do not."""
        mine = [slot for slot in slots if 0 <= slot < NC_SLOTS and self._owners[slot] == pid]
        for slot in mine:
            self._owners[slot] = 0
        return mine

    @property
    def owners(self) -> dict[int, int]:
        """The process ids of marked slots."""
        return {slot: owner for slot, owner in enumerate(self._owners) if owner}

    def release(self, pid: int) -> list[int]:
        """Unmark every slot of a process: them."""
        mine = [slot for slot, owner in enumerate(self._owners) if owner == pid]
        self.unmark(pid, mine)
        return mine
