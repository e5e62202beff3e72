# SPDX-License-Identifier: Apache-2.0
"""PRIME: buffer objects leave a device as dma-bufs, and enter it (accel-core.md §2.7).

All functions need the device's lock.
"""

from __future__ import annotations

import os

from npubox.core.dma_buf import DmaBuf
from npubox.core.drm.file import DrmFile
from npubox.core.drm.gem import GemObject, create_handle, lookup


def export_handle(file: DrmFile, handle: int, access: int) -> DmaBuf:
    """The dma-buf of an object, the same one as long as it has handles; OSError ENOENT."""
    item = lookup(file, handle)
    buffer = file.prime.buffer(handle)
    if buffer is None:
        buffer = item.imported or item.dma_buf or _export(item, access)
        item.remember(buffer)
        file.prime.add(buffer, handle)
    return buffer


def import_buffer(file: DrmFile, buffer: DmaBuf) -> int:
    """A handle for a dma-buf's object; the one it already has here, if any. OSError EINVAL where the driver
    takes no buffers of other devices."""
    handle = file.prime.handle(buffer)
    if handle is not None:
        return handle
    item = buffer.exporter
    if isinstance(item, GemObject) and item.device is file.device:
        item.get()
    else:
        item = file.device.driver.import_buffer(buffer)
    try:
        handle = create_handle(file, item)
    finally:
        item.put()
    item.remember(buffer)
    file.prime.add(buffer, handle)
    return handle


def _export(item: GemObject, access: int) -> DmaBuf:
    item.get()
    return DmaBuf(
        item,
        item.size,
        item.backing,
        item.reservation,
        access & os.O_ACCMODE,
        lambda: item.device.lock.post(item.put),
    )
