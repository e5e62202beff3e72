# SPDX-License-Identifier: Apache-2.0
"""linux/dma-buf.h: the ioctls of a shared buffer's file. Source: the project's facts (accel-core.md §2.7)."""

from __future__ import annotations

import ctypes
from ctypes import c_int32, c_uint32, c_uint64
from enum import IntFlag

from npubox.uapi.ioctl import Dir, Ioctl, encode, iow, iowr

DMA_BUF = "b"
NAME_LENGTH = 32
"""Of a buffer's name, its NUL counted."""


class SyncFlag(IntFlag):
    """`Sync.flags`; READ and WRITE are those of EXPORT_SYNC_FILE and IMPORT_SYNC_FILE too."""

    READ = 1
    WRITE = 2
    END = 4


class Sync(ctypes.Structure):
    """struct dma_buf_sync."""

    _fields_ = (("flags", c_uint64),)


class SyncFile(ctypes.Structure):
    """struct dma_buf_export_sync_file and struct dma_buf_import_sync_file."""

    _fields_ = (("flags", c_uint32), ("fd", c_int32))


class Name(ctypes.Structure):
    """The argument of SET_NAME is a string itself: its size is not in the number."""

    _fields_ = ()


SYNC = iow("DMA_BUF_IOCTL_SYNC", DMA_BUF, 0, Sync)
SET_NAME_A = Ioctl("DMA_BUF_SET_NAME_A", encode(Dir.WRITE, DMA_BUF, 1, 4), Name)
SET_NAME_B = Ioctl("DMA_BUF_SET_NAME_B", encode(Dir.WRITE, DMA_BUF, 1, 8), Name)
EXPORT_SYNC_FILE = iowr("DMA_BUF_IOCTL_EXPORT_SYNC_FILE", DMA_BUF, 2, SyncFile)
IMPORT_SYNC_FILE = iow("DMA_BUF_IOCTL_IMPORT_SYNC_FILE", DMA_BUF, 3, SyncFile)
IOCTLS = (SYNC, SET_NAME_A, SET_NAME_B, EXPORT_SYNC_FILE, IMPORT_SYNC_FILE)
