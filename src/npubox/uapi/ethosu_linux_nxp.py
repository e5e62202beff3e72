# SPDX-License-Identifier: Apache-2.0
"""ethosu.h as NXP ships it: what differs from Arm's (`npubox.uapi.ethosu_linux`).

The names without suffix are NXP's lf-6.1 to 6.6; those with `STAGING` are in the newer header of its
staging driver, whose inferences are invoked as often as wanted. Source: the project's facts
(ethosu-linux.md §1.2, §1.3, §1.10).
"""

from __future__ import annotations

import ctypes
from ctypes import c_char, c_uint32, c_uint64
from enum import IntEnum

from npubox.uapi.ethosu_linux import DESC_MAX, FD_MAX, TYPE
from npubox.uapi.ioctl import ior

PMU_EVENT_MAX = 4
DIM_MAX = 8


class InferenceType(IntEnum):
    """`InferenceCreate.inference_type`; every other value means MODEL."""

    MODEL = 0
    OP = 1


class NetworkInfo(ctypes.Structure):
    """struct ethosu_uapi_network_info: byte sizes, TFLite's type codes, byte offsets in the arena, shapes."""

    _fields_ = (
        ("desc", c_char * DESC_MAX),
        ("is_vela", c_uint32),
        ("ifm_count", c_uint32),
        ("ifm_size", c_uint32 * FD_MAX),
        ("ifm_types", c_uint32 * FD_MAX),
        ("ifm_offset", c_uint32 * FD_MAX),
        ("ifm_dims", c_uint32 * FD_MAX),
        ("ifm_shapes", c_uint32 * DIM_MAX * FD_MAX),
        ("ofm_count", c_uint32),
        ("ofm_size", c_uint32 * FD_MAX),
        ("ofm_types", c_uint32 * FD_MAX),
        ("ofm_offset", c_uint32 * FD_MAX),
        ("ofm_dims", c_uint32 * FD_MAX),
        ("ofm_shapes", c_uint32 * DIM_MAX * FD_MAX),
    )


class PmuConfig(ctypes.Structure):
    """struct ethosu_uapi_pmu_config of four counters."""

    _fields_ = (("events", c_uint32 * PMU_EVENT_MAX), ("cycle_count", c_uint32))


class PmuCounts(ctypes.Structure):
    """struct ethosu_uapi_pmu_counts of four counters."""

    _fields_ = (("events", c_uint32 * PMU_EVENT_MAX), ("cycle_count", c_uint64))


class InferenceCreate(ctypes.Structure):
    """struct ethosu_uapi_inference_create: `ifm_fd[0]` is the arena, the inputs follow or lie in it."""

    _fields_ = (
        ("ifm_count", c_uint32),
        ("ifm_fd", c_uint32 * FD_MAX),
        ("ofm_count", c_uint32),
        ("ofm_fd", c_uint32 * FD_MAX),
        ("inference_type", c_uint32),
        ("pmu_config", PmuConfig),
    )


class MemoryLayout(ctypes.Structure):
    """Of the staging header: where an inference's tensors lie in its one arena buffer, in bytes."""

    _fields_ = (
        ("flash_offset", c_uint32),
        ("arena_offset", c_uint32),
        ("input_count", c_uint32),
        ("input_offset", c_uint32 * FD_MAX),
        ("input_size", c_uint32 * FD_MAX),
        ("output_count", c_uint32),
        ("output_offset", c_uint32 * FD_MAX),
        ("output_size", c_uint32 * FD_MAX),
    )


class InferenceCreateStaging(ctypes.Structure):
    """struct ethosu_uapi_inference_create of the staging header: it prepares and does not start."""

    _fields_ = (
        ("ifm_count", c_uint32),
        ("ifm_fd", c_uint32 * FD_MAX),
        ("ofm_count", c_uint32),
        ("ofm_fd", c_uint32 * FD_MAX),
        ("memory_layout", MemoryLayout),
        ("inference_type", c_uint32),
        ("pmu_config", PmuConfig),
    )


class ResultStatus(ctypes.Structure):
    """struct ethosu_uapi_result_status."""

    _fields_ = (("status", c_uint32), ("pmu_config", PmuConfig), ("pmu_count", PmuCounts))


NETWORK_INFO = ior("ETHOSU_IOCTL_NETWORK_INFO", TYPE, 0x21, NetworkInfo)
INFERENCE_CREATE = ior("ETHOSU_IOCTL_INFERENCE_CREATE", TYPE, 0x30, InferenceCreate)
INFERENCE_STATUS = ior("ETHOSU_IOCTL_INFERENCE_STATUS", TYPE, 0x31, ResultStatus)
IOCTLS = (NETWORK_INFO, INFERENCE_CREATE, INFERENCE_STATUS)

INFERENCE_CREATE_STAGING = ior("ETHOSU_IOCTL_INFERENCE_CREATE", TYPE, 0x30, InferenceCreateStaging)
INFERENCE_INVOKE = ior("ETHOSU_IOCTL_INFERENCE_INVOKE", TYPE, 0x33, ResultStatus)
STAGING_IOCTLS = (INFERENCE_CREATE_STAGING, INFERENCE_INVOKE)
