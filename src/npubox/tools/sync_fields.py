# SPDX-License-Identifier: Apache-2.0
"""What the fields of structs about sync objects, sync files and dma-bufs mean."""

from __future__ import annotations

import ctypes
from ctypes import c_uint32, c_uint64
from enum import IntEnum, IntFlag
from typing import Any

from npubox.tools.pointers import Pointer
from npubox.uapi import dma_buf, drm_syncobj, sw_sync, sync_file
from npubox.uapi.drm_syncobj import CreateFlag, QueryFlag, ToFdFlag, WaitFlag
from npubox.uapi.ioctl import Ioctl


class Handle(ctypes.Structure):
    """An element of an array of handles."""

    _fields_ = (("handle", c_uint32),)


class Point(ctypes.Structure):
    """An element of an array of points."""

    _fields_ = (("point", c_uint64),)


DECLARATIONS: tuple[Ioctl[Any], ...] = (*dma_buf.IOCTLS, *sync_file.IOCTLS, *sw_sync.IOCTLS)
"""Of files that are no DRM nodes."""

ENUMS: dict[tuple[type[ctypes.Structure], str], type[IntEnum] | type[IntFlag]] = {
    (drm_syncobj.SyncobjCreate, "flags"): CreateFlag,
    (drm_syncobj.SyncobjHandle, "flags"): ToFdFlag,
    (drm_syncobj.SyncobjWait, "flags"): WaitFlag,
    (drm_syncobj.SyncobjTimelineWait, "flags"): WaitFlag,
    (drm_syncobj.SyncobjTimelineArray, "flags"): QueryFlag,
    (drm_syncobj.SyncobjTransfer, "flags"): WaitFlag,
    (drm_syncobj.SyncobjEventfd, "flags"): WaitFlag,
    (dma_buf.Sync, "flags"): dma_buf.SyncFlag,
    (dma_buf.SyncFile, "flags"): dma_buf.SyncFlag,
}

_HANDLES = Pointer(Handle, "count_handles")
POINTERS: dict[tuple[type[ctypes.Structure], str], Pointer] = {
    (drm_syncobj.SyncobjWait, "handles"): _HANDLES,
    (drm_syncobj.SyncobjTimelineWait, "handles"): _HANDLES,
    (drm_syncobj.SyncobjTimelineWait, "points"): Pointer(Point, "count_handles"),
    (drm_syncobj.SyncobjArray, "handles"): _HANDLES,
    (drm_syncobj.SyncobjTimelineArray, "handles"): _HANDLES,
    (drm_syncobj.SyncobjTimelineArray, "points"): Pointer(Point, "count_handles"),
    (sync_file.FileInfo, "sync_fence_info"): Pointer(sync_file.FenceInfo, "num_fences", written=True),
}
