# SPDX-License-Identifier: Apache-2.0
"""The ethosu driver's ioctls: every row of errno, and no pointer that can hurt."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
import time
from typing import Any

import pytest

from npubox.bus.port import Prot
from npubox.core.drm.device import DrmDevice, Minors
from npubox.core.node import Node, adopt
from npubox.drivers.accel.ethosu.drv import probe
from npubox.drivers.accel.refaccel.drv import probe as probe_refaccel
from npubox.hw.ethosu.registers import Reg
from npubox.uapi import drm, drm_syncobj
from npubox.uapi import ethosu_accel as uapi
from npubox.uapi.ioctl import Dir, Ioctl, encode
from npubox.uapi.refaccel import CREATE_BO
from tests.core.refaccel import call, fails
from tests.drivers.fake_npu import (
    DRAM,
    SRAM_SIZE,
    U65_256_CONFIG,
    U65_256_ID,
    FakePort,
    bo_create,
    bo_wait,
    cmdstream,
    gem_close,
    job,
    platform,
    submit,
)
from tests.drivers.streams import STOP, copy, stream, words

WILD = [8, 1 << 47, 1 << 63, (1 << 64) - 8]
PROT_NONE = 0
RW = mmap.PROT_READ | mmap.PROT_WRITE
EMPTY = words(STOP)


def test_identity(node: Node) -> None:
    name, date, desc = (ctypes.create_string_buffer(64) for _ in range(3))
    lengths = {"name_len": 64, "date_len": 64, "desc_len": 64}
    buffers = {"name": name, "date": date, "desc": desc}
    args = call(
        node, drm.VERSION, **lengths, **{key: ctypes.addressof(value) for key, value in buffers.items()}
    )
    assert (args.version_major, args.version_minor, args.version_patchlevel) == (1, 0, 0)
    assert (name.value, date.value, desc.value) == (b"ethosu", b"0", b"Arm Ethos-U Accel driver")
    assert node.device.parent == "4a900000.npu"
    assert not node.fdinfo().count("drm-")


def test_dev_query_size_then_answer(node: Node) -> None:
    assert call(node, uapi.DEV_QUERY).size == 12
    info = uapi.NpuInfo()
    args = call(node, uapi.DEV_QUERY, size=12, pointer=ctypes.addressof(info))
    assert (info.id, info.config, info.sram_size, args.size) == (U65_256_ID, U65_256_CONFIG, SRAM_SIZE, 12)


def test_dev_query_zeroes_what_it_does_not_know(node: Node) -> None:
    buffer = ctypes.create_string_buffer(b"\xff" * 40, 40)
    args = call(node, uapi.DEV_QUERY, size=36, pointer=ctypes.addressof(buffer))
    assert args.size == 36
    assert buffer.raw[12:] == bytes(24) + b"\xff" * 4
    newer = uapi.NpuInfoPerfmon(pmu_counters=9)
    call(node, uapi.DEV_QUERY, size=16, pointer=ctypes.addressof(newer))
    assert (newer.id, newer.pmu_counters) == (U65_256_ID, 0)


def test_dev_query_refuses(node: Node) -> None:
    info = uapi.NpuInfo()
    for fields in ({"type": 1}, {"type": 1, "size": 12, "pointer": ctypes.addressof(info)}):
        with fails(errno.EINVAL):
            call(node, uapi.DEV_QUERY, **fields)
    with fails(errno.EINVAL):
        call(node, uapi.DEV_QUERY, size=11, pointer=ctypes.addressof(info))


def test_without_sram() -> None:
    device = probe(platform(FakePort(), sram=False))
    with Node.open(device) as node:
        info = uapi.NpuInfo()
        call(node, uapi.DEV_QUERY, size=12, pointer=ctypes.addressof(info))
        assert info.sram_size == 0
        stream_handle = cmdstream(node, EMPTY)
        with fails(errno.EINVAL):
            submit(node, job(stream_handle, sram_size=1))
    device.unregister()


def test_bo_create(node: Node, port: FakePort) -> None:
    args = call(node, uapi.BO_CREATE, size=5000)
    assert (args.size, args.handle) == (8192, 1)
    offset = call(node, uapi.BO_MMAP_OFFSET, handle=1).offset
    assert offset == 0x1_0000_0000
    assert port.dma.mapped == {DRAM: (node.device.store.fd, offset, 8192, Prot.READ | Prot.WRITE)}
    with node.mmap(5000, RW, mmap.MAP_SHARED, offset) as mapping:
        assert mapping[:] == bytes(5000)
    gem_close(node, 1)
    assert port.dma.mapped == {}
    assert bo_create(node, 1) == 1


@pytest.mark.parametrize(
    ("size", "flags", "error"),
    [
        (0, 0, errno.EINVAL),
        (4096, 2, errno.EINVAL),
        (4096, 0x8000_0001, errno.EINVAL),
        (1 << 25, 0, errno.ENOMEM),
        ((1 << 64) - 1, 0, errno.ENOMEM),
    ],
)
def test_bo_create_refuses(node: Node, size: int, flags: int, error: int) -> None:
    with fails(error):
        bo_create(node, size, flags)
    assert node.device.object_count == 0
    assert bo_create(node, 4096) == 1


def test_device_memory_is_guarded_and_reused(node: Node, port: FakePort) -> None:
    handles = [bo_create(node, 4096) for _ in range(3)]
    assert sorted(port.dma.mapped) == [DRAM, DRAM + 0x2000, DRAM + 0x4000]
    gem_close(node, handles[1])
    bo_create(node, 4096)
    assert sorted(port.dma.mapped) == [DRAM, DRAM + 0x2000, DRAM + 0x4000]


def test_no_mmap(node: Node) -> None:
    for handle in (bo_create(node, 4096, uapi.BoFlag.NO_MMAP), cmdstream(node, EMPTY)):
        offset = call(node, uapi.BO_MMAP_OFFSET, handle=handle).offset
        with fails(errno.EINVAL):
            node.mmap(4096, RW, mmap.MAP_SHARED, offset)


def test_bo_mmap_offset_refuses(node: Node) -> None:
    handle = bo_create(node, 4096)
    with fails(errno.EINVAL):
        call(node, uapi.BO_MMAP_OFFSET, handle=handle, pad=1)
    with fails(errno.ENOENT):
        call(node, uapi.BO_MMAP_OFFSET, handle=handle + 1)


def test_bo_wait_refuses(node: Node) -> None:
    handle = bo_create(node, 4096)
    with fails(errno.EINVAL):
        call(node, uapi.BO_WAIT, handle=handle, pad=1)
    for unknown in (0, handle + 1):
        with fails(errno.EINVAL):
            bo_wait(node, unknown)
    for deadline in (0, -1, (1 << 63) - 1, -(1 << 63)):
        bo_wait(node, handle, deadline)


def test_cmdstream_is_a_read_only_copy(node: Node, port: FakePort) -> None:
    data = stream(copy(0, 1, 64))
    handle = cmdstream(node, data + b"\1\2")
    offset = call(node, uapi.BO_MMAP_OFFSET, handle=handle).offset
    (row,) = port.dma.mapped.values()
    assert row == (node.device.store.fd, offset, 4096, Prot.READ)
    assert os.pread(node.device.store.fd, 4096, offset) == data.ljust(4096, b"\0")


@pytest.mark.parametrize("fields", [{"size": 0}, {"data": 0}, {"flags": 1}, {"pad": 1}])
def test_cmdstream_refuses_fields(node: Node, fields: dict[str, int]) -> None:
    data = ctypes.create_string_buffer(EMPTY, 4)
    good = {"size": 4, "data": ctypes.addressof(data)}
    with fails(errno.EINVAL):
        call(node, uapi.CMDSTREAM_BO_CREATE, **{**good, **fields})


def test_cmdstream_refuses_content_and_leaves_nothing(node: Node, port: FakePort) -> None:
    with fails(errno.EINVAL):
        cmdstream(node, words(0x105))
    assert port.dma.mapped == {}
    assert cmdstream(node, EMPTY) == 1


def test_submit_nothing(node: Node) -> None:
    call(node, uapi.SUBMIT, jobs=8, job_count=0)
    with fails(errno.EINVAL):
        call(node, uapi.SUBMIT, pad=1)


@pytest.mark.parametrize(
    ("declaration", "fields"),
    [
        (uapi.DEV_QUERY, {"size": 12, "pointer": None}),
        (uapi.DEV_QUERY, {"size": 0xFFFF_FFFF, "pointer": None}),
        (uapi.CMDSTREAM_BO_CREATE, {"size": 4, "data": None}),
        (uapi.CMDSTREAM_BO_CREATE, {"size": 1 << 20, "data": None}),
        (uapi.SUBMIT, {"job_count": 1, "jobs": None}),
        (uapi.SUBMIT, {"job_count": 0xFFFF_FFFF, "jobs": None}),
    ],
    ids=lambda value: getattr(value, "name", None) or str(value.get("size", value.get("job_count"))),
)
@pytest.mark.parametrize("address", WILD)
def test_wild_nested_pointers(
    node: Node, declaration: Ioctl[Any], fields: dict[str, int | None], address: int
) -> None:
    filled = {key: address if value is None else value for key, value in fields.items()}
    with fails(errno.EFAULT):
        call(node, declaration, **filled)
    assert node.device.object_count == 0


@pytest.mark.parametrize("declaration", uapi.IOCTLS, ids=lambda declaration: declaration.name)
@pytest.mark.parametrize("address", WILD)
def test_wild_arguments(node: Node, declaration: Ioctl[Any], address: int) -> None:
    with fails(errno.EFAULT):
        node.ioctl(declaration, address)
    assert node.device.object_count == 0


def test_a_buffer_that_ends_at_an_unmapped_page(node: Node) -> None:
    area = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    libc = ctypes.CDLL(None)
    assert libc.mprotect(ctypes.c_void_p(start + mmap.PAGESIZE), mmap.PAGESIZE, PROT_NONE) == 0
    area[mmap.PAGESIZE - 4 : mmap.PAGESIZE] = EMPTY
    data = start + mmap.PAGESIZE - 4
    call(node, uapi.CMDSTREAM_BO_CREATE, size=4, data=data)
    with fails(errno.EFAULT):
        call(node, uapi.CMDSTREAM_BO_CREATE, size=8, data=data)
    with fails(errno.EFAULT):
        call(node, uapi.DEV_QUERY, size=12, pointer=data)
    assert libc.mprotect(ctypes.c_void_p(start + mmap.PAGESIZE), mmap.PAGESIZE, RW) == 0


def test_perfmon_ioctls_are_not_in_this_header(node: Node) -> None:
    for declaration in uapi.PERFMON_IOCTLS:
        with fails(errno.EINVAL):
            node.ioctl(declaration, 0)


def test_a_struct_that_grew_at_the_end(node: Node) -> None:
    buffer = ctypes.create_string_buffer(struct.pack("<QQQ", 5000, 0, 0x5A5A), 24)
    node.ioctl(encode(Dir.READ | Dir.WRITE, "d", 0x41, 24), ctypes.addressof(buffer))
    created = uapi.BoCreate.from_buffer_copy(buffer.raw)
    assert (created.size, created.handle, buffer.raw[16:]) == (8192, 1, struct.pack("<Q", 0x5A5A))


@pytest.mark.parametrize(
    ("id_", "config", "name"),
    [
        (0x2000_0000, 0x2000_0117, "U85"),
        (U65_256_ID, 0x0000_1005, "U55"),
        (0, U65_256_CONFIG, "architecture 0"),
    ],
)
def test_probe_refuses_by_name(id_: int, config: int, name: str) -> None:
    port = FakePort(id_=id_, config=config)
    with pytest.raises(OSError, match=name) as caught:
        probe(platform(port))
    assert caught.value.errno == errno.ENODEV
    assert not port.connected


def test_probe_gives_up_on_an_npu_that_stays_in_reset() -> None:
    port = FakePort()
    port.stuck_in_reset = True
    with fails(errno.ETIMEDOUT):
        probe(platform(port))
    assert port.clock.now() == 1_000_000_000


def test_probe_resets_and_clears_the_sram() -> None:
    port = FakePort()
    resources = platform(port)
    assert resources.sram is not None
    os.pwrite(resources.sram.fd, b"\xff" * SRAM_SIZE, 0)
    device = probe(resources)
    assert port.writes == [
        (Reg.RESET, 2),
        (Reg.REGIONCFG, 0xAA8A),
        (Reg.AXI_LIMIT0, 0x1F3F00B0),
        (Reg.AXI_LIMIT2, 0x1F3F0002),
    ]
    assert os.pread(resources.sram.fd, SRAM_SIZE, 0) == bytes(SRAM_SIZE)
    device.unregister()


def test_unplug(device: DrmDevice) -> None:
    node = Node.open(device)
    bo_create(node, 4096)
    device.unplug()
    for declaration in uapi.IOCTLS:
        with fails(errno.ENODEV):
            node.ioctl(declaration, 8)
    node.close()


def test_bo_wait_honours_absolute_deadlines(node: Node, port: FakePort) -> None:
    handle = bo_create(node, 4096)
    submit(node, job(cmdstream(node, stream(copy(0x100, 1, 64))), r1=handle))
    for deadline in (0, -1, time.monotonic_ns() - 1):
        with fails(errno.ETIME):
            bo_wait(node, handle, deadline)
    deadline = time.monotonic_ns() + 30_000_000
    with fails(errno.ETIME):
        bo_wait(node, handle, deadline)
    assert time.monotonic_ns() >= deadline
    port.complete()
    bo_wait(node, handle)


def test_sync_objects_are_not_supported(node: Node) -> None:
    argument = ctypes.create_string_buffer(64)
    for declaration in drm_syncobj.IOCTLS:
        with fails(errno.EOPNOTSUPP):
            node.ioctl(declaration, ctypes.addressof(argument))
    for capability in (drm.Cap.SYNCOBJ, drm.Cap.SYNCOBJ_TIMELINE):
        assert call(node, drm.GET_CAP, capability=capability).value == 0


def test_buffers_leave_but_do_not_enter(node: Node) -> None:
    with Node.open(probe_refaccel("refaccel.0", Minors())) as other:
        theirs = call(other, CREATE_BO, size=4096).handle
        foreign = call(other, drm.PRIME_HANDLE_TO_FD, handle=theirs, flags=os.O_RDWR).fd
        with fails(errno.EINVAL):
            call(node, drm.PRIME_FD_TO_HANDLE, fd=foreign)
        mine = call(node, drm.PRIME_HANDLE_TO_FD, handle=bo_create(node, 4096), flags=os.O_RDWR).fd
        handle = call(other, drm.PRIME_FD_TO_HANDLE, fd=mine).handle
        offset = other.device.object_at(0x1_0000_1000)
        assert (handle, offset is not None) == (2, True)
        for fd in (foreign, mine):
            adopt(fd).close()
        other.device.unregister()
