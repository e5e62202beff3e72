# SPDX-License-Identifier: Apache-2.0
"""drm/drm.h: the ioctls of the DRM core that arrive at an accel node, and every core number of Linux 7.2.

Layouts are those of 64-bit little-endian ABIs. Source: the project's facts (accel-core.md §2).
"""

from __future__ import annotations

import ctypes
from ctypes import c_int32, c_uint32, c_uint64
from enum import IntEnum, IntFlag

from npubox.uapi.ioctl import io, ior, iow, iowr

DRM = "d"
COMMAND_BASE = 0x40
COMMAND_END = 0xA0
CORE_TABLE_LENGTH = 0xD3
CLIENT_NAME_MAX_LEN = 64


class Flag(IntFlag):
    """What the core's table asks of a caller."""

    NONE = 0
    AUTH = 1 << 0
    MASTER = 1 << 1
    ROOT_ONLY = 1 << 2
    RENDER_ALLOW = 1 << 5


class Cap(IntEnum):
    """`GetCap.capability`."""

    DUMB_BUFFER = 0x1
    VBLANK_HIGH_CRTC = 0x2
    DUMB_PREFERRED_DEPTH = 0x3
    DUMB_PREFER_SHADOW = 0x4
    PRIME = 0x5
    TIMESTAMP_MONOTONIC = 0x6
    ASYNC_PAGE_FLIP = 0x7
    CURSOR_WIDTH = 0x8
    CURSOR_HEIGHT = 0x9
    ADDFB2_MODIFIERS = 0x10
    PAGE_FLIP_TARGET = 0x11
    CRTC_IN_VBLANK_EVENT = 0x12
    SYNCOBJ = 0x13
    SYNCOBJ_TIMELINE = 0x14
    ATOMIC_ASYNC_PAGE_FLIP = 0x15


PRIME_CAP_IMPORT = 1
PRIME_CAP_EXPORT = 2


class Version(ctypes.Structure):
    """struct drm_version; each `*_len` is the capacity on the way in, the true length on the way out."""

    _fields_ = (
        ("version_major", c_int32),
        ("version_minor", c_int32),
        ("version_patchlevel", c_int32),
        ("name_len", c_uint64),
        ("name", c_uint64),
        ("date_len", c_uint64),
        ("date", c_uint64),
        ("desc_len", c_uint64),
        ("desc", c_uint64),
    )


class Unique(ctypes.Structure):
    """struct drm_unique."""

    _fields_ = (("unique_len", c_uint64), ("unique", c_uint64))


class Auth(ctypes.Structure):
    """struct drm_auth."""

    _fields_ = (("magic", c_uint32),)


class Client(ctypes.Structure):
    """struct drm_client."""

    _fields_ = (
        ("idx", c_int32),
        ("auth", c_int32),
        ("pid", c_uint64),
        ("uid", c_uint64),
        ("magic", c_uint64),
        ("iocs", c_uint64),
    )


class StatsEntry(ctypes.Structure):
    """One element of `Stats.data`."""

    _fields_ = (("value", c_uint64), ("type", c_uint32))


class Stats(ctypes.Structure):
    """struct drm_stats."""

    _fields_ = (("count", c_uint64), ("data", StatsEntry * 15))


class GemClose(ctypes.Structure):
    """struct drm_gem_close; `pad` is not checked."""

    _fields_ = (("handle", c_uint32), ("pad", c_uint32))


class GemFlink(ctypes.Structure):
    """struct drm_gem_flink."""

    _fields_ = (("handle", c_uint32), ("name", c_uint32))


class GemOpen(ctypes.Structure):
    """struct drm_gem_open."""

    _fields_ = (("name", c_uint32), ("handle", c_uint32), ("size", c_uint64))


class GetCap(ctypes.Structure):
    """struct drm_get_cap."""

    _fields_ = (("capability", c_uint64), ("value", c_uint64))


class SetClientCap(ctypes.Structure):
    """struct drm_set_client_cap."""

    _fields_ = (("capability", c_uint64), ("value", c_uint64))


class PrimeHandle(ctypes.Structure):
    """struct drm_prime_handle."""

    _fields_ = (("handle", c_uint32), ("flags", c_uint32), ("fd", c_int32))


class SetClientName(ctypes.Structure):
    """struct drm_set_client_name; `name` has `name_len` bytes and no NUL."""

    _fields_ = (("name_len", c_uint64), ("name", c_uint64))


class Lock(ctypes.Structure):
    """struct drm_lock, the argument of FINISH."""

    _fields_ = (("context", c_int32), ("flags", c_uint32))


VERSION = iowr("DRM_IOCTL_VERSION", DRM, 0x00, Version)
GET_UNIQUE = iowr("DRM_IOCTL_GET_UNIQUE", DRM, 0x01, Unique)
GET_MAGIC = ior("DRM_IOCTL_GET_MAGIC", DRM, 0x02, Auth)
GET_CLIENT = iowr("DRM_IOCTL_GET_CLIENT", DRM, 0x05, Client)
GET_STATS = ior("DRM_IOCTL_GET_STATS", DRM, 0x06, Stats)
GEM_CLOSE = iow("DRM_IOCTL_GEM_CLOSE", DRM, 0x09, GemClose)
GEM_FLINK = iowr("DRM_IOCTL_GEM_FLINK", DRM, 0x0A, GemFlink)
GEM_OPEN = iowr("DRM_IOCTL_GEM_OPEN", DRM, 0x0B, GemOpen)
GET_CAP = iowr("DRM_IOCTL_GET_CAP", DRM, 0x0C, GetCap)
SET_CLIENT_CAP = iow("DRM_IOCTL_SET_CLIENT_CAP", DRM, 0x0D, SetClientCap)
SET_MASTER = io("DRM_IOCTL_SET_MASTER", DRM, 0x1E)
DROP_MASTER = io("DRM_IOCTL_DROP_MASTER", DRM, 0x1F)
FINISH = iow("DRM_IOCTL_FINISH", DRM, 0x2C, Lock)
PRIME_HANDLE_TO_FD = iowr("DRM_IOCTL_PRIME_HANDLE_TO_FD", DRM, 0x2D, PrimeHandle)
PRIME_FD_TO_HANDLE = iowr("DRM_IOCTL_PRIME_FD_TO_HANDLE", DRM, 0x2E, PrimeHandle)
SET_CLIENT_NAME = iowr("DRM_IOCTL_SET_CLIENT_NAME", DRM, 0xD1, SetClientName)
IOCTLS = (
    VERSION,
    GET_UNIQUE,
    GET_MAGIC,
    GET_CLIENT,
    GET_STATS,
    GEM_CLOSE,
    GEM_FLINK,
    GEM_OPEN,
    GET_CAP,
    SET_CLIENT_CAP,
    SET_MASTER,
    DROP_MASTER,
    FINISH,
    PRIME_HANDLE_TO_FD,
    PRIME_FD_TO_HANDLE,
    SET_CLIENT_NAME,
)
