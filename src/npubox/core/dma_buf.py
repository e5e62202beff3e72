# SPDX-License-Identifier: Apache-2.0
"""dma-buf: a buffer as a file, to be shared with other processes and devices (accel-core.md §2.7)."""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import select
import threading
from collections.abc import Callable

from npubox.core.caller import Caller
from npubox.core.drm.fence import signalled_fence
from npubox.core.drm.fence_container import unwrap
from npubox.core.drm.reservation import Reservation, Usage
from npubox.core.file import Backing, OpenFile, TokenStandIn
from npubox.core.pending import Completion, FirstOf, Pending
from npubox.core.ranges import PAGE_SIZE, page_align
from npubox.core.struct_ioctls import Ioctls
from npubox.core.sync_file import SyncFile, fence_of
from npubox.core.usermem import read_string
from npubox.uapi import dma_buf as uapi
from npubox.uapi.dma_buf import SyncFlag
from npubox.uapi.ioctl import NUMBER_MASK

_BOTH = int(SyncFlag.READ | SyncFlag.WRITE)
_serials = itertools.count(1)


class DmaBuf(OpenFile):
    """`size` bytes, a page multiple, at `backing`; `access` is O_RDWR or O_RDONLY, for all its descriptors.

    `exporter` is whatever its exporter knows it by. Handles, importers and tables of descriptors hold it
    (`get`, `put`); when the last of them lets go, in whatever thread, `release_memory` is called.
    """

    def __init__(
        self,
        exporter: object,
        size: int,
        backing: Backing,
        reservation: Reservation,
        access: int,
        release_memory: Callable[[], None],
        *,
        exporter_name: str = "drm",
    ) -> None:
        self.exporter = exporter
        self.size = size
        self.backing = backing
        self.reservation = reservation
        self.access = access
        self.name = ""
        self.serial = next(_serials)
        self.stand_in = TokenStandIn(size)
        self._exporter_name = exporter_name
        self._release_memory = release_memory
        self._guard = threading.Lock()
        self._holders = 0

    def get(self) -> None:
        with self._guard:
            self._holders += 1

    def put(self) -> None:
        with self._guard:
            self._holders -= 1
            held = self._holders > 0
        if not held:
            self._release_memory()

    def installed(self) -> None:
        self.get()

    def release(self) -> None:
        self.put()

    @property
    def link(self) -> str:  # type: ignore[override]
        return f"/dmabuf:{self.name}"

    def ioctl(self, request: int, address: int, caller: Caller) -> int | Pending:
        if request & NUMBER_MASK in (uapi.SET_NAME_A.number, uapi.SET_NAME_B.number):
            self.name = read_string(caller.memory, address, uapi.NAME_LENGTH).decode("latin-1")
            return 0
        return _IOCTLS.call(self, request, address, caller)

    def mmap(self, length: int, prot: int, flags: int, offset: int, caller: Caller) -> Backing:
        """OSError EINVAL outside the buffer or for MAP_PRIVATE, EACCES for writing to a read-only one."""
        if flags & mmap.MAP_SHARED and prot & mmap.PROT_WRITE and self.access != os.O_RDWR:
            raise OSError(errno.EACCES, "the buffer was exported read-only")
        if length <= 0 or offset < 0 or offset % PAGE_SIZE or offset + page_align(length) > self.size:
            raise OSError(errno.EINVAL, f"{length} bytes at {offset:#x} are not inside {self.size} bytes")
        if not flags & mmap.MAP_SHARED:
            raise OSError(errno.EINVAL, "a buffer can only be mapped MAP_SHARED")
        return self.backing._replace(offset=self.backing.offset + offset)

    def poll(self) -> int:
        """POLLIN when all writers are done, POLLOUT when everybody is."""
        readable = 0 if self.reservation.fences(Usage.WRITE) else select.POLLIN
        return readable | (0 if self.reservation.fences(Usage.READ) else select.POLLOUT)

    def poll_changes(self) -> Completion | None:
        fences = self.reservation.fences(Usage.READ)
        return FirstOf(fences) if fences else None

    def lseek(self, offset: int, whence: int) -> int:
        """Only to find out the size and back."""
        if offset or whence not in (os.SEEK_SET, os.SEEK_END):
            raise OSError(errno.EINVAL, "a dma-buf's position is its start or its end")
        return self.size if whence == os.SEEK_END else 0

    def fdinfo(self) -> str:
        lines = [("size", self.size), ("count", self._holders), ("exp_name", self._exporter_name)]
        return "".join(f"{key}:\t{value}\n" for key, value in lines) + (
            f"name:\t{self.name}\n" if self.name else ""
        )

    def sync(self, args: uapi.Sync, caller: Caller) -> Pending | None:
        """The CPU begins to use the buffer, and waits for the devices, or ends."""
        _check_access(args.flags, SyncFlag.END)
        if args.flags & SyncFlag.END:
            return None
        return Pending(self.reservation.fences(Usage.before(write=bool(args.flags & SyncFlag.WRITE))))

    def export_sync_file(self, args: uapi.SyncFile, caller: Caller) -> None:
        _check_access(args.flags)
        fence = self.reservation.singleton(Usage.before(write=bool(args.flags & SyncFlag.WRITE)))
        args.fd = caller.files.install(SyncFile(fence or signalled_fence()), os.O_CLOEXEC | os.O_RDWR)

    def import_sync_file(self, args: uapi.SyncFile, caller: Caller) -> None:
        _check_access(args.flags)
        usage = Usage.WRITE if args.flags & SyncFlag.WRITE else Usage.READ
        for fence in unwrap(fence_of(caller.files, args.fd)):
            self.reservation.add(fence, usage)


_IOCTLS = Ioctls(
    (uapi.SYNC, DmaBuf.sync),
    (uapi.EXPORT_SYNC_FILE, DmaBuf.export_sync_file),
    (uapi.IMPORT_SYNC_FILE, DmaBuf.import_sync_file),
)


def _check_access(flags: int, more: int = 0) -> None:
    if flags & ~(_BOTH | int(more)) or not flags & _BOTH:
        raise OSError(errno.EINVAL, f"flags {flags:#x} do not say READ or WRITE, or say more")
