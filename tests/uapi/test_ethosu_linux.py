# SPDX-License-Identifier: Apache-2.0
"""Every number, size and offset of three generations of ethosu.h (facts, ethosu-linux.md §1.2, §1.3)."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from npubox.uapi import ethosu_linux as arm
from npubox.uapi import ethosu_linux_nxp as nxp
from npubox.uapi.ioctl import Ioctl, ioc_size

NUMBERS: list[tuple[Ioctl[Any], int]] = [
    (arm.PING, 0x00000100),
    (arm.VERSION_REQ, 0x00000101),
    (arm.CAPABILITIES_REQ, 0x80340102),
    (arm.BUFFER_CREATE, 0x80040110),
    (arm.BUFFER_SET, 0x80080111),
    (arm.BUFFER_GET, 0x40080112),
    (arm.NETWORK_CREATE, 0x80080120),
    (arm.NETWORK_INFO, 0x80A80121),
    (arm.INFERENCE_CREATE, 0x80AC0130),
    (arm.INFERENCE_STATUS, 0x80500131),
    (arm.INFERENCE_CANCEL, 0x80040132),
    (nxp.NETWORK_INFO, 0x862C0121),
    (nxp.INFERENCE_CREATE, 0x80A00130),
    (nxp.INFERENCE_STATUS, 0x80300131),
    (nxp.INFERENCE_CREATE_STAGING, 0x81B00130),
    (nxp.INFERENCE_INVOKE, 0x80300133),
]

LAYOUTS: dict[type[ctypes.Structure], tuple[int, dict[str, int]]] = {
    arm.BufferCreate: (4, {"capacity": 0}),
    arm.Buffer: (8, {"offset": 0, "size": 4}),
    arm.NetworkCreate: (8, {"type": 0, "fd": 4}),
    arm.CancelInferenceStatus: (4, {"status": 0}),
    arm.HardwareId: (
        28,
        {
            "version_status": 0,
            "version_minor": 4,
            "version_major": 8,
            "product_major": 12,
            "arch_patch_rev": 16,
            "arch_minor_rev": 20,
            "arch_major_rev": 24,
        },
    ),
    arm.HardwareConfiguration: (12, {"macs_per_cc": 0, "cmd_stream_version": 4, "custom_dma": 8}),
    arm.DeviceCapabilities: (
        52,
        {"hw_id": 0, "hw_cfg": 28, "driver_patch_rev": 40, "driver_minor_rev": 44, "driver_major_rev": 48},
    ),
    arm.NetworkInfo: (168, {"desc": 0, "ifm_count": 32, "ifm_size": 36, "ofm_count": 100, "ofm_size": 104}),
    arm.PmuConfig: (36, {"events": 0, "cycle_count": 32}),
    arm.PmuCounts: (40, {"events": 0, "cycle_count": 32}),
    arm.InferenceCreate: (
        172,
        {"ifm_count": 0, "ifm_fd": 4, "ofm_count": 68, "ofm_fd": 72, "pmu_config": 136},
    ),
    arm.ResultStatus: (80, {"status": 0, "pmu_config": 4, "pmu_count": 40}),
    nxp.NetworkInfo: (
        1580,
        {
            "desc": 0,
            "is_vela": 32,
            "ifm_count": 36,
            "ifm_size": 40,
            "ifm_types": 104,
            "ifm_offset": 168,
            "ifm_dims": 232,
            "ifm_shapes": 296,
            "ofm_count": 808,
            "ofm_size": 812,
            "ofm_types": 876,
            "ofm_offset": 940,
            "ofm_dims": 1004,
            "ofm_shapes": 1068,
        },
    ),
    nxp.PmuConfig: (20, {"events": 0, "cycle_count": 16}),
    nxp.PmuCounts: (24, {"events": 0, "cycle_count": 16}),
    nxp.InferenceCreate: (
        160,
        {
            "ifm_count": 0,
            "ifm_fd": 4,
            "ofm_count": 68,
            "ofm_fd": 72,
            "inference_type": 136,
            "pmu_config": 140,
        },
    ),
    nxp.MemoryLayout: (
        272,
        {
            "flash_offset": 0,
            "arena_offset": 4,
            "input_count": 8,
            "input_offset": 12,
            "input_size": 76,
            "output_count": 140,
            "output_offset": 144,
            "output_size": 208,
        },
    ),
    nxp.InferenceCreateStaging: (
        432,
        {
            "ifm_count": 0,
            "ifm_fd": 4,
            "ofm_count": 68,
            "ofm_fd": 72,
            "memory_layout": 136,
            "inference_type": 408,
            "pmu_config": 412,
        },
    ),
    nxp.ResultStatus: (48, {"status": 0, "pmu_config": 4, "pmu_count": 24}),
}


@pytest.mark.parametrize(("declared", "number"), NUMBERS, ids=lambda value: getattr(value, "name", ""))
def test_number(declared: Ioctl[Any], number: int) -> None:
    assert declared.number == number
    assert ctypes.sizeof(declared.struct) == ioc_size(number)


def test_every_declared_ioctl_is_in_the_table() -> None:
    declared: list[Ioctl[Any]] = [*arm.IOCTLS, *nxp.IOCTLS, *nxp.STAGING_IOCTLS]
    assert [ioctl.number for ioctl in declared] == [number for _, number in NUMBERS]
    assert len({ioctl.number for ioctl in declared}) == len(declared)


@pytest.mark.parametrize("struct", LAYOUTS, ids=lambda struct: f"{struct.__module__}.{struct.__name__}")
def test_layout(struct: type[ctypes.Structure]) -> None:
    size, offsets = LAYOUTS[struct]
    assert ctypes.sizeof(struct) == size
    assert {field[0]: getattr(struct, field[0]).offset for field in struct._fields_} == offsets


def test_status_values() -> None:
    assert [(status.name, status.value) for status in arm.Status] == [
        ("OK", 0),
        ("ERROR", 1),
        ("RUNNING", 2),
        ("REJECTED", 3),
        ("ABORTED", 4),
        ("ABORTING", 5),
    ]
