# SPDX-License-Identifier: Apache-2.0
"""GEM: buffer objects, and the two counts that decide how long one lives.

`refcount` counts everything that needs the memory (handles together count one, each mapping, each job
in flight); `handle_count` counts handles over all files, and with the last one the object loses its
flink name. All methods need the device's lock. Source: the project's facts (accel-core.md §3.1, §3.2).
"""

from __future__ import annotations

import errno
from collections import Counter
from enum import IntFlag
from typing import TYPE_CHECKING

from npubox.core.drm.reservation import Reservation
from npubox.core.file import Backing
from npubox.core.ranges import page_align

if TYPE_CHECKING:
    from npubox.core.dma_buf import DmaBuf
    from npubox.core.drm.device import DrmDevice
    from npubox.core.drm.file import DrmFile


class Status(IntFlag):
    """What a driver knows of an object's memory."""

    RESIDENT = 1
    PURGEABLE = 2


class GemObject:
    """A buffer object of `size` bytes, a page multiple, with the mmap offset `offset`.

    Its pages are at `backing`: at that offset of the device's store, or where the dma-buf that it was
    `imported` from has them. A driver subclasses it and extends `release`. Raises OSError EINVAL for size 0
    and ENOMEM when the store is full.
    """

    def __init__(self, device: DrmDevice, size: int, imported: DmaBuf | None = None) -> None:
        if size <= 0:
            raise OSError(errno.EINVAL, "a buffer object needs at least one byte")
        self.device = device
        self.size = page_align(size)
        self.imported = imported
        if imported is None:
            self.offset = device.store.allocate(self.size)
            self.backing = Backing(device.store.fd, self.offset)
            self.reservation = Reservation()
        else:
            self.offset = device.store.reserve(self.size)
            imported.get()
            self.backing = imported.backing
            self.reservation = imported.reservation
        self.refcount = 1
        self.handle_count = 0
        self.flink_name = 0
        self.dma_buf: DmaBuf | None = None
        self.mappable = True
        self.users: Counter[DrmFile] = Counter()
        device.add_object(self)

    @property
    def status(self) -> Status | None:
        """For fdinfo; None where the driver does not say."""
        return None

    def get(self) -> None:
        assert self.refcount > 0, "a reference to a freed buffer object"
        self.refcount += 1

    def put(self) -> None:
        """Drop a reference; with the last one the memory goes back."""
        self.refcount -= 1
        if self.refcount == 0:
            self.release()

    def remember(self, buffer: DmaBuf | None) -> None:
        """The dma-buf to export again; None when the last handle is gone."""
        before, self.dma_buf = self.dma_buf, buffer
        if buffer is not None:
            buffer.get()
        if before is not None:
            before.put()

    def release(self) -> None:
        """Free the memory. A driver takes its own mappings away first and then calls this."""
        self.device.remove_object(self)
        self.device.store.free(self.offset, self.size)
        if self.imported is not None:
            self.imported.put()
        self.device.put()


def create_handle(file: DrmFile, item: GemObject) -> int:
    """A new handle for an object in this file, lowest free number from 1; OSError ENOSPC."""
    handle = file.handles.allocate(item)
    if item.handle_count == 0:
        item.get()
    item.handle_count += 1
    item.users[file] += 1
    return handle


def delete_handle(file: DrmFile, handle: int) -> None:
    """Close a handle; OSError EINVAL if there is none."""
    item = file.handles.remove(handle)
    if item is None:
        raise OSError(errno.EINVAL, f"this file has no buffer object handle {handle}")
    file.prime.remove(handle)
    item.users[file] -= 1
    if not item.users[file]:
        del item.users[file]
    item.handle_count -= 1
    if item.handle_count == 0:
        item.remember(None)
        if item.flink_name:
            item.device.flink_names.remove(item.flink_name)
            item.flink_name = 0
        item.put()


def lookup(file: DrmFile, handle: int, error: int = errno.ENOENT) -> GemObject:
    """The object behind a handle, without a reference of its own; OSError `error` if there is none."""
    item = file.handles.get(handle)
    if item is None:
        raise OSError(error, f"this file has no buffer object handle {handle}")
    return item
