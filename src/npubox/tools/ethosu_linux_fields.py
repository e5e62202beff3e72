# SPDX-License-Identifier: Apache-2.0
"""What the fields of /dev/ethosu<N>'s structs, and of its mailbox's messages, mean beyond their C types."""

from __future__ import annotations

import ctypes
from enum import IntEnum, IntFlag
from typing import Any

from npubox.hw.ethosu import core_interface as core
from npubox.uapi import ethosu_linux as arm
from npubox.uapi import ethosu_linux_nxp as nxp
from npubox.uapi.ioctl import Ioctl

Field = tuple[type[ctypes.Structure], str]

DECLARATIONS: tuple[Ioctl[Any], ...] = (*arm.IOCTLS, *nxp.IOCTLS, *nxp.STAGING_IOCTLS)

ENUMS: dict[Field, type[IntEnum] | type[IntFlag]] = {
    (arm.NetworkCreate, "type"): arm.NetworkType,
    (arm.ResultStatus, "status"): arm.Status,
    (arm.CancelInferenceStatus, "status"): arm.Status,
    (nxp.InferenceCreate, "inference_type"): nxp.InferenceType,
    (nxp.InferenceCreateStaging, "inference_type"): nxp.InferenceType,
    (nxp.ResultStatus, "status"): arm.Status,
    (core.Network, "type"): core.NetworkType,
    (core.InferenceRsp, "status"): core.CoreStatus,
    (core.NetworkInfoRsp, "status"): core.CoreStatus,
    (core.NetworkLayoutRsp, "status"): core.CoreStatus,
    (core.CancelInferenceRsp, "status"): core.CoreStatus,
    (core.ErrorMessage, "type"): core.ErrorType,
}

_ARRAYS = {
    "ifm_count": ("ifm", "ifm_fd", "ifm_size", "ifm_types", "ifm_offset", "ifm_dims", "ifm_shapes"),
    "ofm_count": ("ofm", "ofm_fd", "ofm_size", "ofm_types", "ofm_offset", "ofm_dims", "ofm_shapes"),
    "input_count": ("input_offset", "input_size"),
    "output_count": ("output_offset", "output_size"),
}

COUNTED: dict[str, str] = {array: count for count, arrays in _ARRAYS.items() for array in arrays}
"""By an array's name, the field that says how many of its elements count: the rest may be garbage."""
