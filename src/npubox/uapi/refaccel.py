# SPDX-License-Identifier: Apache-2.0
"""The one ioctl of the reference accel driver, which was measured on a real kernel (accel-core.md)."""

from __future__ import annotations

import ctypes
from ctypes import c_uint32, c_uint64

from npubox.uapi.drm import COMMAND_BASE, DRM
from npubox.uapi.ioctl import iowr

DRIVER_NAME = "refaccel"


class CreateBo(ctypes.Structure):
    """`size` in bytes goes in, the handle and the mmap offset come out."""

    _fields_ = (("size", c_uint64), ("handle", c_uint32), ("pad", c_uint32), ("offset", c_uint64))


CREATE_BO = iowr("REFACCEL_CREATE_BO", DRM, COMMAND_BASE, CreateBo)
IOCTLS = (CREATE_BO,)
