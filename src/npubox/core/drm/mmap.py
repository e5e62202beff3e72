# SPDX-License-Identifier: Apache-2.0
"""What mmap of a DRM node checks, whichever way the call came (accel-core.md §3.3)."""

from __future__ import annotations

import errno
import mmap
import os

from npubox.core.drm.file import DrmFile
from npubox.core.drm.gem import GemObject
from npubox.core.ranges import PAGE_SIZE, page_align


def find_mappable(
    file: DrmFile, open_flags: int, length: int, prot: int, flags: int, offset: int
) -> GemObject:
    """The object that this mmap maps, without a reference of its own; OSError EINVAL, EACCES, ENODEV.

    Under the device's lock. `open_flags` are those that the file was opened with.
    """
    if length <= 0 or offset < 0 or offset % PAGE_SIZE:
        raise OSError(errno.EINVAL, f"mmap of {length} bytes at offset {offset:#x}")
    accmode = open_flags & os.O_ACCMODE
    if accmode == os.O_WRONLY or (
        flags & mmap.MAP_SHARED and prot & mmap.PROT_WRITE and accmode != os.O_RDWR
    ):
        raise OSError(errno.EACCES, "the node is not open for this kind of mapping")
    if file.device.unplugged:
        raise OSError(errno.ENODEV, f"{file.device.name} was unplugged")
    item = file.device.object_at(offset)
    if item is None or page_align(length) > item.size:
        raise OSError(errno.EINVAL, f"no buffer object of {length} bytes starts at offset {offset:#x}")
    if not item.users[file]:
        raise OSError(errno.EACCES, f"this file has no handle for the object at {offset:#x}")
    if not item.mappable:
        raise OSError(errno.EINVAL, f"the buffer object at {offset:#x} was made with NO_MMAP")
    if not flags & mmap.MAP_SHARED:
        raise OSError(errno.EINVAL, "a buffer object can only be mapped MAP_SHARED")
    return item
