# SPDX-License-Identifier: Apache-2.0
"""Timelines that programs advance by hand, for tests: the ioctls of sw_sync, which are in no installed
header. Source: the project's facts (accel-core.md §2.9)."""

from __future__ import annotations

import ctypes
from ctypes import c_char, c_int32, c_uint32, c_uint64

from npubox.uapi.ioctl import iow, iowr
from npubox.uapi.sync_file import NAME_LENGTH

SW_SYNC = "W"


class CreateFenceData(ctypes.Structure):
    """`fence` becomes a sync_file that signals when the timeline has reached `value`."""

    _fields_ = (("value", c_uint32), ("name", c_char * NAME_LENGTH), ("fence", c_int32))


class Increment(ctypes.Structure):
    """By how much INC advances the timeline."""

    _fields_ = (("value", c_uint32),)


class GetDeadline(ctypes.Structure):
    """The earliest deadline that anybody hinted for the fence of `fence_fd`."""

    _fields_ = (("deadline_ns", c_uint64), ("pad", c_uint32), ("fence_fd", c_int32))


CREATE_FENCE = iowr("SW_SYNC_IOC_CREATE_FENCE", SW_SYNC, 0, CreateFenceData)
INC = iow("SW_SYNC_IOC_INC", SW_SYNC, 1, Increment)
GET_DEADLINE = iowr("SW_SYNC_GET_DEADLINE", SW_SYNC, 2, GetDeadline)
IOCTLS = (CREATE_FENCE, INC, GET_DEADLINE)
