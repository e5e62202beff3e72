# SPDX-License-Identifier: Apache-2.0
"""Numbers and layouts of sync objects, dma-bufs, sync files, sw_sync and refaccel against the facts
(accel-core.md §2.8, §2.9) and the system's own headers."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from npubox.uapi import dma_buf, drm_syncobj, refaccel, sw_sync, sync_file
from npubox.uapi.drm_numbers import NUMBERS
from npubox.uapi.ioctl import Ioctl, ioc_size
from tests.uapi.test_uapi import Layout, compare_with_headers, layout

SYNCOBJ = {declaration.name.removeprefix("DRM_IOCTL_"): declaration for declaration in drm_syncobj.IOCTLS}
DMA_BUF: dict[str, tuple[Ioctl[Any], int]] = {
    "IOCTL_SYNC": (dma_buf.SYNC, 0x40086200),
    "SET_NAME_A": (dma_buf.SET_NAME_A, 0x40046201),
    "SET_NAME_B": (dma_buf.SET_NAME_B, 0x40086201),
    "IOCTL_EXPORT_SYNC_FILE": (dma_buf.EXPORT_SYNC_FILE, 0xC0086202),
    "IOCTL_IMPORT_SYNC_FILE": (dma_buf.IMPORT_SYNC_FILE, 0x40086203),
}
SYNC_FILE: dict[str, tuple[Ioctl[Any], int]] = {
    "MERGE": (sync_file.MERGE, 0xC0303E03),
    "FILE_INFO": (sync_file.FILE_INFO, 0xC0383E04),
    "SET_DEADLINE": (sync_file.SET_DEADLINE, 0x40103E05),
}
SW_SYNC: dict[str, tuple[Ioctl[Any], int]] = {
    "CREATE_FENCE": (sw_sync.CREATE_FENCE, 0xC0285700),
    "INC": (sw_sync.INC, 0x40045701),
    "GET_DEADLINE": (sw_sync.GET_DEADLINE, 0xC0105702),
}
DMA_BUF_LAYOUTS: dict[str, tuple[type[ctypes.Structure], Layout]] = {
    "dma_buf_sync": (dma_buf.Sync, (8, {"flags": 0})),
    "dma_buf_export_sync_file": (dma_buf.SyncFile, (8, {"flags": 0, "fd": 4})),
    "dma_buf_import_sync_file": (dma_buf.SyncFile, (8, {"flags": 0, "fd": 4})),
}
SYNC_FILE_LAYOUTS: dict[str, tuple[type[ctypes.Structure], Layout]] = {
    "sync_merge_data": (
        sync_file.MergeData,
        (48, {"name": 0, "fd2": 32, "fence": 36, "flags": 40, "pad": 44}),
    ),
    "sync_fence_info": (
        sync_file.FenceInfo,
        (80, {"obj_name": 0, "driver_name": 32, "status": 64, "flags": 68, "timestamp_ns": 72}),
    ),
    "sync_file_info": (
        sync_file.FileInfo,
        (56, {"name": 0, "status": 32, "flags": 36, "num_fences": 40, "pad": 44, "sync_fence_info": 48}),
    ),
    "sync_set_deadline": (sync_file.SetDeadline, (16, {"deadline_ns": 0, "pad": 8})),
}
SYNCOBJ_LAYOUTS: dict[str, tuple[type[ctypes.Structure], Layout]] = {
    "create": (drm_syncobj.SyncobjCreate, (8, {"handle": 0, "flags": 4})),
    "destroy": (drm_syncobj.SyncobjDestroy, (8, {"handle": 0, "pad": 4})),
    "handle": (drm_syncobj.SyncobjHandle, (24, {"handle": 0, "flags": 4, "fd": 8, "pad": 12, "point": 16})),
    "wait": (
        drm_syncobj.SyncobjWait,
        (
            40,
            {
                "handles": 0,
                "timeout_nsec": 8,
                "count_handles": 16,
                "flags": 20,
                "first_signaled": 24,
                "pad": 28,
                "deadline_nsec": 32,
            },
        ),
    ),
    "timeline_wait": (
        drm_syncobj.SyncobjTimelineWait,
        (
            48,
            {
                "handles": 0,
                "points": 8,
                "timeout_nsec": 16,
                "count_handles": 24,
                "flags": 28,
                "first_signaled": 32,
                "pad": 36,
                "deadline_nsec": 40,
            },
        ),
    ),
    "array": (drm_syncobj.SyncobjArray, (16, {"handles": 0, "count_handles": 8, "pad": 12})),
    "timeline_array": (
        drm_syncobj.SyncobjTimelineArray,
        (24, {"handles": 0, "points": 8, "count_handles": 16, "flags": 20}),
    ),
    "transfer": (
        drm_syncobj.SyncobjTransfer,
        (32, {"src_handle": 0, "dst_handle": 4, "src_point": 8, "dst_point": 16, "flags": 24, "pad": 28}),
    ),
    "eventfd": (drm_syncobj.SyncobjEventfd, (24, {"handle": 0, "flags": 4, "point": 8, "fd": 16, "pad": 20})),
}
OWN_LAYOUTS: dict[str, tuple[type[ctypes.Structure], Layout]] = {
    "create_fence": (sw_sync.CreateFenceData, (40, {"value": 0, "name": 4, "fence": 36})),
    "get_deadline": (sw_sync.GetDeadline, (16, {"deadline_ns": 0, "pad": 8, "fence_fd": 12})),
    "create_bo": (refaccel.CreateBo, (24, {"size": 0, "handle": 8, "pad": 12, "offset": 16})),
}


@pytest.mark.parametrize("name", SYNCOBJ)
def test_numbers_are_those_of_the_core_table(name: str) -> None:
    assert SYNCOBJ[name].number == NUMBERS[name][0]
    assert ioc_size(SYNCOBJ[name].number) == ctypes.sizeof(SYNCOBJ[name].struct)


@pytest.mark.parametrize("name", [*DMA_BUF, *SYNC_FILE, *SW_SYNC])
def test_the_number_is_the_facts(name: str) -> None:
    declared, number = {**DMA_BUF, **SYNC_FILE, **SW_SYNC}[name]
    assert declared.number == number


def test_every_declared_ioctl_is_compared() -> None:
    assert set(SYNCOBJ) == {name for name in NUMBERS if name.startswith("SYNCOBJ_")}
    declared = {*dma_buf.IOCTLS, *sync_file.IOCTLS, *sw_sync.IOCTLS}
    assert declared == {row[0] for row in (*DMA_BUF.values(), *SYNC_FILE.values(), *SW_SYNC.values())}
    assert refaccel.CREATE_BO.number == 0xC0186440


ALL_LAYOUTS = {**DMA_BUF_LAYOUTS, **SYNC_FILE_LAYOUTS, **SYNCOBJ_LAYOUTS, **OWN_LAYOUTS}


@pytest.mark.parametrize("name", ALL_LAYOUTS)
def test_the_layout_is_the_facts(name: str) -> None:
    struct, expected = ALL_LAYOUTS[name]
    assert layout(struct) == expected


@pytest.mark.parametrize(
    ("header", "prefix", "ioctls", "structs"),
    [
        ("linux/dma-buf.h", "DMA_BUF_", DMA_BUF, DMA_BUF_LAYOUTS),
        ("linux/sync_file.h", "SYNC_IOC_", SYNC_FILE, SYNC_FILE_LAYOUTS),
    ],
    ids=["dma-buf.h", "sync_file.h"],
)
def test_numbers_and_layouts_are_the_system_headers(
    tmp_path: Path,
    header: str,
    prefix: str,
    ioctls: dict[str, tuple[Ioctl[Any], int]],
    structs: dict[str, tuple[type[ctypes.Structure], Layout]],
) -> None:
    compare_with_headers(tmp_path, header, prefix, ioctls, structs)
