# SPDX-License-Identifier: Apache-2.0
"""Who uses a device: attached processes and their datastores (facts, neuron.md §11.1, §11.2)."""

from __future__ import annotations

import errno
from collections.abc import Callable

from npubox.drivers.misc.neuron.memory import Chunk, Lifetime, Memory, Request
from npubox.uapi.neuron import DATASTORE_SIZE, PROCESSES, MemType


class Processes:
    """The 16 slots of attached processes, by process id. Guarded by the driver's lock."""

    def __init__(self) -> None:
        self._slots: list[int] = [0] * PROCESSES
        self._opens: dict[int, int] = {}

    def __contains__(self, pid: int) -> bool:
        return pid in self._opens

    def __bool__(self) -> bool:
        return bool(self._opens)

    @property
    def slots(self) -> list[int]:
        """The process id in each slot, 0 in a free one."""
        return list(self._slots)

    def attach(self, pid: int) -> None:
        """OSError EBUSY when 16 other processes are attached."""
        if pid not in self._opens:
            try:
                slot = self._slots.index(0)
            except ValueError:
                raise OSError(errno.EBUSY, f"{PROCESSES} processes use this device") from None
            self._slots[slot] = pid
        self._opens[pid] = self._opens.get(pid, 0) + 1

    def detach(self, pid: int) -> bool:
        """One open file less: whether it was the process's last."""
        if pid not in self._opens:
            return False
        self._opens[pid] -= 1
        return not self._opens[pid] and self.forget(pid)

    def forget(self, pid: int) -> bool:
        """A process is gone, whatever it had open: whether it was attached."""
        if self._opens.pop(pid, None) is None:
            return False
        self._slots[self._slots.index(pid)] = 0
        return True


class Datastores:
    """Shared memory in which the runtime of each process counts. Guarded by the driver's lock."""

    def __init__(self, memory: Memory, fold: Callable[[bytes], None]) -> None:
        """`fold` takes the content of each that is released."""
        self._memory = memory
        self._fold = fold
        self._stores: dict[int, Chunk] = {}

    def acquire(self, owner: int, *, create: bool) -> Chunk:
        """A process's datastore, zeroed when new. ENOENT where there is none, ENOMEM where 16 are."""
        store = self._stores.get(owner)
        if store is None:
            if not create:
                raise OSError(errno.ENOENT, f"process {owner} has no datastore")
            if len(self._stores) >= PROCESSES:
                raise OSError(errno.ENOMEM, f"{PROCESSES} processes have datastores")
            request = Request(DATASTORE_SIZE, host=True, mem_type=MemType.NCDEV_HOST)
            store = self._stores[owner] = self._memory.allocate(request, Lifetime.DEVICE, owner)
        return store

    def release(self, owner: int) -> None:
        """The memory goes; nothing for a process that has none."""
        store = self._stores.pop(owner, None)
        if store is not None:
            self._fold(self._memory.read(store, 0, DATASTORE_SIZE))
            self._memory.free(store)

    def release_all(self) -> None:
        for owner in list(self._stores):
            self.release(owner)
