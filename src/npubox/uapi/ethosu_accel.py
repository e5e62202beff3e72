# SPDX-License-Identifier: Apache-2.0
"""drm/ethosu_accel.h: mainline Linux's ABI of the Arm Ethos-U accel driver.

The names without suffix are the header of Linux 7.2. Those with `PERFMON` in their name are in the
newer header that Mesa carries and that 7.2 does not have; which of the two a driver serves is the
driver's choice. Source: the project's facts (ethosu-accel.md §1).
"""

from __future__ import annotations

import ctypes
from ctypes import c_int64, c_uint16, c_uint32, c_uint64
from enum import IntEnum, IntFlag

from npubox.uapi.drm import COMMAND_BASE, DRM
from npubox.uapi.ioctl import iowr

DRIVER_NAME = "ethosu"
REGIONS = 8


class Query(IntEnum):
    """`DevQuery.type`."""

    NPU_INFO = 0


class BoFlag(IntFlag):
    """`BoCreate.flags`."""

    NO_MMAP = 1


class DevQuery(ctypes.Structure):
    """struct drm_ethosu_dev_query; `pointer` 0 asks for the size of the answer."""

    _fields_ = (("type", c_uint32), ("size", c_uint32), ("pointer", c_uint64))


class NpuInfo(ctypes.Structure):
    """struct drm_ethosu_npu_info: the registers ID and CONFIG, and the on-chip SRAM in bytes."""

    _fields_ = (("id", c_uint32), ("config", c_uint32), ("sram_size", c_uint32))


class NpuInfoPerfmon(ctypes.Structure):
    """struct drm_ethosu_npu_info of the newer header."""

    _fields_ = (*NpuInfo._fields_, ("pmu_counters", c_uint32))


class BoCreate(ctypes.Structure):
    """struct drm_ethosu_bo_create; `size` comes back rounded up to pages."""

    _fields_ = (("size", c_uint64), ("flags", c_uint32), ("handle", c_uint32))


class BoWait(ctypes.Structure):
    """struct drm_ethosu_bo_wait; `timeout_ns` is an absolute CLOCK_MONOTONIC time."""

    _fields_ = (("handle", c_uint32), ("pad", c_uint32), ("timeout_ns", c_int64))


class BoMmapOffset(ctypes.Structure):
    """struct drm_ethosu_bo_mmap_offset."""

    _fields_ = (("handle", c_uint32), ("pad", c_uint32), ("offset", c_uint64))


class CmdstreamBoCreate(ctypes.Structure):
    """struct drm_ethosu_cmdstream_bo_create; `size` bytes of command stream at `data`."""

    _fields_ = (
        ("size", c_uint32),
        ("flags", c_uint32),
        ("data", c_uint64),
        ("handle", c_uint32),
        ("pad", c_uint32),
    )


class Job(ctypes.Structure):
    """struct drm_ethosu_job."""

    _fields_ = (
        ("cmd_bo", c_uint32),
        ("sram_size", c_uint32),
        ("region_bo_handles", c_uint32 * REGIONS),
    )


class Submit(ctypes.Structure):
    """struct drm_ethosu_submit; `jobs` points to `job_count` of Job."""

    _fields_ = (("jobs", c_uint64), ("job_count", c_uint32), ("pad", c_uint32))


class SubmitPerfmon(ctypes.Structure):
    """struct drm_ethosu_submit of the newer header."""

    _fields_ = (("jobs", c_uint64), ("job_count", c_uint32), ("perfmon_id", c_uint32))


class PerfmonCreate(ctypes.Structure):
    """struct drm_ethosu_perfmon_create of the newer header."""

    _fields_ = (("id", c_uint32), ("ncounters", c_uint32), ("counters", c_uint16 * 8))


class PerfmonDestroy(ctypes.Structure):
    """struct drm_ethosu_perfmon_destroy of the newer header."""

    _fields_ = (("id", c_uint32),)


class PerfmonGetValues(ctypes.Structure):
    """struct drm_ethosu_perfmon_get_values: `values_ptr` takes ncounters + 1 u64, the last cycles."""

    _fields_ = (("id", c_uint32), ("pad", c_uint32), ("values_ptr", c_uint64))


class PerfmonSetGlobal(ctypes.Structure):
    """struct drm_ethosu_perfmon_set_global of the newer header."""

    _fields_ = (("flags", c_uint32), ("id", c_uint32))


_BASE = COMMAND_BASE
DEV_QUERY = iowr("DRM_IOCTL_ETHOSU_DEV_QUERY", DRM, _BASE + 0, DevQuery)
BO_CREATE = iowr("DRM_IOCTL_ETHOSU_BO_CREATE", DRM, _BASE + 1, BoCreate)
BO_WAIT = iowr("DRM_IOCTL_ETHOSU_BO_WAIT", DRM, _BASE + 2, BoWait)
BO_MMAP_OFFSET = iowr("DRM_IOCTL_ETHOSU_BO_MMAP_OFFSET", DRM, _BASE + 3, BoMmapOffset)
CMDSTREAM_BO_CREATE = iowr("DRM_IOCTL_ETHOSU_CMDSTREAM_BO_CREATE", DRM, _BASE + 4, CmdstreamBoCreate)
SUBMIT = iowr("DRM_IOCTL_ETHOSU_SUBMIT", DRM, _BASE + 5, Submit)
IOCTLS = (DEV_QUERY, BO_CREATE, BO_WAIT, BO_MMAP_OFFSET, CMDSTREAM_BO_CREATE, SUBMIT)

PERFMON_CREATE = iowr("DRM_IOCTL_ETHOSU_PERFMON_CREATE", DRM, _BASE + 6, PerfmonCreate)
PERFMON_DESTROY = iowr("DRM_IOCTL_ETHOSU_PERFMON_DESTROY", DRM, _BASE + 7, PerfmonDestroy)
PERFMON_GET_VALUES = iowr("DRM_IOCTL_ETHOSU_PERFMON_GET_VALUES", DRM, _BASE + 8, PerfmonGetValues)
PERFMON_SET_GLOBAL = iowr("DRM_IOCTL_ETHOSU_PERFMON_SET_GLOBAL", DRM, _BASE + 9, PerfmonSetGlobal)
PERFMON_IOCTLS = (PERFMON_CREATE, PERFMON_DESTROY, PERFMON_GET_VALUES, PERFMON_SET_GLOBAL)
