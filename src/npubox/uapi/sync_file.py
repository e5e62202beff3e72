# SPDX-License-Identifier: Apache-2.0
"""linux/sync_file.h: fences as files. Source: the project's facts (accel-core.md §2.9)."""

from __future__ import annotations

import ctypes
from ctypes import c_char, c_int32, c_uint32, c_uint64

from npubox.uapi.ioctl import iow, iowr

SYNC_FILE = ">"
NAME_LENGTH = 32


class MergeData(ctypes.Structure):
    """struct sync_merge_data."""

    _fields_ = (
        ("name", c_char * NAME_LENGTH),
        ("fd2", c_int32),
        ("fence", c_int32),
        ("flags", c_uint32),
        ("pad", c_uint32),
    )


class FenceInfo(ctypes.Structure):
    """struct sync_fence_info; `status` is 0, 1 or a negative errno."""

    _fields_ = (
        ("obj_name", c_char * NAME_LENGTH),
        ("driver_name", c_char * NAME_LENGTH),
        ("status", c_int32),
        ("flags", c_uint32),
        ("timestamp_ns", c_uint64),
    )


class FileInfo(ctypes.Structure):
    """struct sync_file_info; `sync_fence_info` points to `num_fences` FenceInfo."""

    _fields_ = (
        ("name", c_char * NAME_LENGTH),
        ("status", c_int32),
        ("flags", c_uint32),
        ("num_fences", c_uint32),
        ("pad", c_uint32),
        ("sync_fence_info", c_uint64),
    )


class SetDeadline(ctypes.Structure):
    """struct sync_set_deadline."""

    _fields_ = (("deadline_ns", c_uint64), ("pad", c_uint64))


MERGE = iowr("SYNC_IOC_MERGE", SYNC_FILE, 3, MergeData)
FILE_INFO = iowr("SYNC_IOC_FILE_INFO", SYNC_FILE, 4, FileInfo)
SET_DEADLINE = iow("SYNC_IOC_SET_DEADLINE", SYNC_FILE, 5, SetDeadline)
IOCTLS = (MERGE, FILE_INFO, SET_DEADLINE)
