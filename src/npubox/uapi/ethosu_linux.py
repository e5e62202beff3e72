# SPDX-License-Identifier: Apache-2.0
"""ethosu.h: the ABI of Arm's Linux driver for an Ethos-U subsystem, of its generation 2022.06.

The direction bits of these numbers lie: which arguments are read and which are written is in the driver's
table. Source: the project's facts (ethosu-linux.md §1.2, §1.3).
"""

from __future__ import annotations

import ctypes
from ctypes import c_char, c_uint32, c_uint64
from enum import IntEnum

from npubox.uapi.ioctl import io, ior, iow

TYPE = "\x01"
FD_MAX = 16
PMU_EVENT_MAX = 8
DESC_MAX = 32


class Status(IntEnum):
    """The status of an inference, of a cancellation, and of a message between host and subsystem."""

    OK = 0
    ERROR = 1
    RUNNING = 2
    REJECTED = 3
    ABORTED = 4
    ABORTING = 5


class NetworkType(IntEnum):
    """`NetworkCreate.type`."""

    BUFFER = 1
    INDEX = 2


class HardwareId(ctypes.Structure):
    """struct ethosu_uapi_device_hw_id: the fields of the NPU's register ID."""

    _fields_ = (
        ("version_status", c_uint32),
        ("version_minor", c_uint32),
        ("version_major", c_uint32),
        ("product_major", c_uint32),
        ("arch_patch_rev", c_uint32),
        ("arch_minor_rev", c_uint32),
        ("arch_major_rev", c_uint32),
    )


class HardwareConfiguration(ctypes.Structure):
    """struct ethosu_uapi_device_hw_cfg: fields of the NPU's register CONFIG; `macs_per_cc` is a logarithm."""

    _fields_ = (("macs_per_cc", c_uint32), ("cmd_stream_version", c_uint32), ("custom_dma", c_uint32))


class DeviceCapabilities(ctypes.Structure):
    """struct ethosu_uapi_device_capabilities; the driver is the subsystem's own, of its NPU."""

    _fields_ = (
        ("hw_id", HardwareId),
        ("hw_cfg", HardwareConfiguration),
        ("driver_patch_rev", c_uint32),
        ("driver_minor_rev", c_uint32),
        ("driver_major_rev", c_uint32),
    )


class BufferCreate(ctypes.Structure):
    """struct ethosu_uapi_buffer_create: bytes."""

    _fields_ = (("capacity", c_uint32),)


class Buffer(ctypes.Structure):
    """struct ethosu_uapi_buffer: the window of valid bytes."""

    _fields_ = (("offset", c_uint32), ("size", c_uint32))


class NetworkCreate(ctypes.Structure):
    """struct ethosu_uapi_network_create: `fd` of a buffer, or the index of a network in the firmware."""

    _fields_ = (("type", c_uint32), ("fd", c_uint32))


class NetworkInfo(ctypes.Structure):
    """struct ethosu_uapi_network_info; sizes in bytes."""

    _fields_ = (
        ("desc", c_char * DESC_MAX),
        ("ifm_count", c_uint32),
        ("ifm_size", c_uint32 * FD_MAX),
        ("ofm_count", c_uint32),
        ("ofm_size", c_uint32 * FD_MAX),
    )


class PmuConfig(ctypes.Structure):
    """struct ethosu_uapi_pmu_config: an event a counter, 0 for off; `cycle_count` enables that counter."""

    _fields_ = (("events", c_uint32 * PMU_EVENT_MAX), ("cycle_count", c_uint32))


class PmuCounts(ctypes.Structure):
    """struct ethosu_uapi_pmu_counts."""

    _fields_ = (("events", c_uint32 * PMU_EVENT_MAX), ("cycle_count", c_uint64))


class InferenceCreate(ctypes.Structure):
    """struct ethosu_uapi_inference_create: fds of buffers; those beyond the counts may be garbage."""

    _fields_ = (
        ("ifm_count", c_uint32),
        ("ifm_fd", c_uint32 * FD_MAX),
        ("ofm_count", c_uint32),
        ("ofm_fd", c_uint32 * FD_MAX),
        ("pmu_config", PmuConfig),
    )


class ResultStatus(ctypes.Structure):
    """struct ethosu_uapi_result_status."""

    _fields_ = (("status", c_uint32), ("pmu_config", PmuConfig), ("pmu_count", PmuCounts))


class CancelInferenceStatus(ctypes.Structure):
    """struct ethosu_uapi_cancel_inference_status: OK if the inference was taken back."""

    _fields_ = (("status", c_uint32),)


PING = io("ETHOSU_IOCTL_PING", TYPE, 0x00)
VERSION_REQ = io("ETHOSU_IOCTL_VERSION_REQ", TYPE, 0x01)
CAPABILITIES_REQ = ior("ETHOSU_IOCTL_CAPABILITIES_REQ", TYPE, 0x02, DeviceCapabilities)
BUFFER_CREATE = ior("ETHOSU_IOCTL_BUFFER_CREATE", TYPE, 0x10, BufferCreate)
BUFFER_SET = ior("ETHOSU_IOCTL_BUFFER_SET", TYPE, 0x11, Buffer)
BUFFER_GET = iow("ETHOSU_IOCTL_BUFFER_GET", TYPE, 0x12, Buffer)
NETWORK_CREATE = ior("ETHOSU_IOCTL_NETWORK_CREATE", TYPE, 0x20, NetworkCreate)
NETWORK_INFO = ior("ETHOSU_IOCTL_NETWORK_INFO", TYPE, 0x21, NetworkInfo)
INFERENCE_CREATE = ior("ETHOSU_IOCTL_INFERENCE_CREATE", TYPE, 0x30, InferenceCreate)
INFERENCE_STATUS = ior("ETHOSU_IOCTL_INFERENCE_STATUS", TYPE, 0x31, ResultStatus)
INFERENCE_CANCEL = ior("ETHOSU_IOCTL_INFERENCE_CANCEL", TYPE, 0x32, CancelInferenceStatus)

IOCTLS = (
    PING,
    VERSION_REQ,
    CAPABILITIES_REQ,
    BUFFER_CREATE,
    BUFFER_SET,
    BUFFER_GET,
    NETWORK_CREATE,
    NETWORK_INFO,
    INFERENCE_CREATE,
    INFERENCE_STATUS,
    INFERENCE_CANCEL,
)
