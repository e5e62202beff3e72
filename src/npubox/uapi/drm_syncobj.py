# SPDX-License-Identifier: Apache-2.0
"""drm/drm.h, its part on synchronisation objects. Source: the project's facts (accel-core.md §2.8)."""

from __future__ import annotations

import ctypes
from ctypes import c_int32, c_int64, c_uint32, c_uint64
from enum import IntFlag

from npubox.uapi.drm import DRM
from npubox.uapi.ioctl import iowr

NO_INDEX = 0xFFFF_FFFF
"""`first_signaled` of a wait for all of which none had signalled at first."""


class CreateFlag(IntFlag):
    """`SyncobjCreate.flags`."""

    SIGNALED = 1


class ToFdFlag(IntFlag):
    """`SyncobjHandle.flags` of HANDLE_TO_FD."""

    EXPORT_SYNC_FILE = 1
    TIMELINE = 2


class ToHandleFlag(IntFlag):
    """`SyncobjHandle.flags` of FD_TO_HANDLE."""

    IMPORT_SYNC_FILE = 1
    TIMELINE = 2


class WaitFlag(IntFlag):
    """Flags of the waits; TRANSFER knows FOR_SUBMIT, EVENTFD AVAILABLE."""

    ALL = 1
    FOR_SUBMIT = 2
    AVAILABLE = 4
    DEADLINE = 8


class QueryFlag(IntFlag):
    """`SyncobjTimelineArray.flags` of QUERY."""

    LAST_SUBMITTED = 1


class SyncobjCreate(ctypes.Structure):
    """struct drm_syncobj_create."""

    _fields_ = (("handle", c_uint32), ("flags", c_uint32))


class SyncobjDestroy(ctypes.Structure):
    """struct drm_syncobj_destroy."""

    _fields_ = (("handle", c_uint32), ("pad", c_uint32))


class SyncobjHandle(ctypes.Structure):
    """struct drm_syncobj_handle."""

    _fields_ = (
        ("handle", c_uint32),
        ("flags", c_uint32),
        ("fd", c_int32),
        ("pad", c_uint32),
        ("point", c_uint64),
    )


class SyncobjWait(ctypes.Structure):
    """struct drm_syncobj_wait; `timeout_nsec` and `deadline_nsec` are absolute CLOCK_MONOTONIC."""

    _fields_ = (
        ("handles", c_uint64),
        ("timeout_nsec", c_int64),
        ("count_handles", c_uint32),
        ("flags", c_uint32),
        ("first_signaled", c_uint32),
        ("pad", c_uint32),
        ("deadline_nsec", c_uint64),
    )


class SyncobjTimelineWait(ctypes.Structure):
    """struct drm_syncobj_timeline_wait."""

    _fields_ = (
        ("handles", c_uint64),
        ("points", c_uint64),
        ("timeout_nsec", c_int64),
        ("count_handles", c_uint32),
        ("flags", c_uint32),
        ("first_signaled", c_uint32),
        ("pad", c_uint32),
        ("deadline_nsec", c_uint64),
    )


class SyncobjArray(ctypes.Structure):
    """struct drm_syncobj_array."""

    _fields_ = (("handles", c_uint64), ("count_handles", c_uint32), ("pad", c_uint32))


class SyncobjTimelineArray(ctypes.Structure):
    """struct drm_syncobj_timeline_array."""

    _fields_ = (("handles", c_uint64), ("points", c_uint64), ("count_handles", c_uint32), ("flags", c_uint32))


class SyncobjTransfer(ctypes.Structure):
    """struct drm_syncobj_transfer."""

    _fields_ = (
        ("src_handle", c_uint32),
        ("dst_handle", c_uint32),
        ("src_point", c_uint64),
        ("dst_point", c_uint64),
        ("flags", c_uint32),
        ("pad", c_uint32),
    )


class SyncobjEventfd(ctypes.Structure):
    """struct drm_syncobj_eventfd."""

    _fields_ = (
        ("handle", c_uint32),
        ("flags", c_uint32),
        ("point", c_uint64),
        ("fd", c_int32),
        ("pad", c_uint32),
    )


SYNCOBJ_CREATE = iowr("DRM_IOCTL_SYNCOBJ_CREATE", DRM, 0xBF, SyncobjCreate)
SYNCOBJ_DESTROY = iowr("DRM_IOCTL_SYNCOBJ_DESTROY", DRM, 0xC0, SyncobjDestroy)
SYNCOBJ_HANDLE_TO_FD = iowr("DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD", DRM, 0xC1, SyncobjHandle)
SYNCOBJ_FD_TO_HANDLE = iowr("DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE", DRM, 0xC2, SyncobjHandle)
SYNCOBJ_WAIT = iowr("DRM_IOCTL_SYNCOBJ_WAIT", DRM, 0xC3, SyncobjWait)
SYNCOBJ_RESET = iowr("DRM_IOCTL_SYNCOBJ_RESET", DRM, 0xC4, SyncobjArray)
SYNCOBJ_SIGNAL = iowr("DRM_IOCTL_SYNCOBJ_SIGNAL", DRM, 0xC5, SyncobjArray)
SYNCOBJ_TIMELINE_WAIT = iowr("DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT", DRM, 0xCA, SyncobjTimelineWait)
SYNCOBJ_QUERY = iowr("DRM_IOCTL_SYNCOBJ_QUERY", DRM, 0xCB, SyncobjTimelineArray)
SYNCOBJ_TRANSFER = iowr("DRM_IOCTL_SYNCOBJ_TRANSFER", DRM, 0xCC, SyncobjTransfer)
SYNCOBJ_TIMELINE_SIGNAL = iowr("DRM_IOCTL_SYNCOBJ_TIMELINE_SIGNAL", DRM, 0xCD, SyncobjTimelineArray)
SYNCOBJ_EVENTFD = iowr("DRM_IOCTL_SYNCOBJ_EVENTFD", DRM, 0xCF, SyncobjEventfd)
IOCTLS = (
    SYNCOBJ_CREATE,
    SYNCOBJ_DESTROY,
    SYNCOBJ_HANDLE_TO_FD,
    SYNCOBJ_FD_TO_HANDLE,
    SYNCOBJ_WAIT,
    SYNCOBJ_RESET,
    SYNCOBJ_SIGNAL,
    SYNCOBJ_TIMELINE_WAIT,
    SYNCOBJ_QUERY,
    SYNCOBJ_TRANSFER,
    SYNCOBJ_TIMELINE_SIGNAL,
    SYNCOBJ_EVENTFD,
)
