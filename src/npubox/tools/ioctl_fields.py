# SPDX-License-Identifier: Apache-2.0
"""What the fields of ioctl structs mean beyond their C types: enumerations, and what pointers lead to."""

from __future__ import annotations

import ctypes
from enum import IntEnum, IntFlag
from typing import Any

from npubox.tools import ethosu_linux_fields, neuron_fields, sync_fields
from npubox.tools.pointers import Pointer
from npubox.uapi import drm, drm_syncobj, ethosu_accel
from npubox.uapi.ioctl import Ioctl

DECLARATIONS: tuple[Ioctl[Any], ...] = (
    *drm.IOCTLS,
    *drm_syncobj.IOCTLS,
    *ethosu_accel.IOCTLS,
    *ethosu_accel.PERFMON_IOCTLS,
)

ENUMS: dict[tuple[type[ctypes.Structure], str], type[IntEnum] | type[IntFlag]] = {
    (drm.GetCap, "capability"): drm.Cap,
    (ethosu_accel.DevQuery, "type"): ethosu_accel.Query,
    (ethosu_accel.BoCreate, "flags"): ethosu_accel.BoFlag,
    **sync_fields.ENUMS,
    **ethosu_linux_fields.ENUMS,
    **neuron_fields.ENUMS,
}


POINTERS: dict[tuple[type[ctypes.Structure], str], Pointer] = {
    (drm.Version, "name"): Pointer(None, "name_len", written=True, text=True),
    (drm.Version, "date"): Pointer(None, "date_len", written=True, text=True),
    (drm.Version, "desc"): Pointer(None, "desc_len", written=True, text=True),
    (drm.SetClientName, "name"): Pointer(None, "name_len", text=True),
    (ethosu_accel.DevQuery, "pointer"): Pointer(ethosu_accel.NpuInfo, None, written=True),
    (ethosu_accel.CmdstreamBoCreate, "data"): Pointer(None, "size"),
    (ethosu_accel.Submit, "jobs"): Pointer(ethosu_accel.Job, "job_count"),
    **sync_fields.POINTERS,
    **neuron_fields.POINTERS,
}

HEXADECIMAL = neuron_fields.HEXADECIMAL
