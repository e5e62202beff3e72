# SPDX-License-Identifier: Apache-2.0
"""The facts' acceptance checks from open to close (neuron.md §12.7), in order, on both kinds of revision."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator

import pytest

from npubox.hw.neuron import descriptors
from npubox.hw.neuron.pci import Revision
from npubox.uapi import neuron as uapi
from npubox.uapi import neuron_structs as structs
from tests.drivers.neuron.program import Machine, Program

MIB = 1 << 20
RING = 64


@pytest.fixture(params=[Revision.QEMU, Revision.SILICON], ids=["qemu", "silicon"])
def program(request: pytest.FixtureRequest) -> Iterator[Program]:
    with Machine(revision=request.param) as machine:
        opened = machine.program()
        yield opened
        opened.close()


def test_driver_info(program: Program) -> None:
    info = structs.DeviceDriverInfo()
    assert program.call(uapi.DRIVER_INFO_GET, info) == 0
    revision = program.machine.chips[0].identity.revision
    told = info.architecture, info.revision, info.version, info.size, info.feature_flags1
    assert told == (1, revision, 0, 24, 0xFF)


def test_first_allocation_is_at_0(program: Program) -> None:
    handle = program.alloc(MIB)
    assert (handle, program.pa(handle)) == (1, 0)


def test_buf_copy_in_and_out(program: Program) -> None:
    handle, data = program.alloc(MIB), os.urandom(MIB)
    program.write(handle, data)
    assert program.read(handle, MIB) == data


def test_memset(program: Program) -> None:
    handle, data = program.alloc(MIB), os.urandom(MIB)
    program.write(handle, data)
    args = structs.Memset(mem_handle=handle, offset=1000, value=0x1234AB, size=200_000)
    assert program.call(uapi.MEMSET, args) == 0
    assert program.read(handle, MIB) == data[:1000] + b"\xab" * 200_000 + data[201_000:]


def test_copy_between_handles(program: Program) -> None:
    host, device, other = program.alloc(MIB, host=True), program.alloc(MIB), program.alloc(MIB, channel=1)
    data = os.urandom(MIB)
    program.write(host, data)
    program.copy(host, device, MIB)
    program.copy(device, other, MIB)
    assert program.read(other, MIB) == data


def test_pair_of_asynchronous_copies(program: Program) -> None:
    host, device = program.alloc(MIB, host=True), program.alloc(MIB)
    data = os.urandom(800_000)
    program.write(host, data)
    args = structs.MemCopyAsync64(src_mem_handle=host, dst_mem_handle=device, size=400_000)
    args.pwait_handle = 0xFFFF_FFFF
    assert program.call(uapi.MEM_COPY_ASYNC64, args) == 0
    assert args.wait_handle == 1
    args.src_offset = args.dst_offset = 400_000
    args.pwait_handle = 1
    assert program.call(uapi.MEM_COPY_ASYNC64, args) == 0
    assert args.wait_handle == 2
    assert program.read(device, 400_000) == data[:400_000]
    wait = structs.MemCopyAsyncWait(src_mem_handle=host, dst_mem_handle=device, pwait_handle=2)
    assert program.call(uapi.MEM_COPY_ASYNC_WAIT, wait) == 0
    assert program.read(device, 800_000) == data


def test_semaphore(program: Program) -> None:
    args = structs.Semaphore(nc_id=2, semaphore_index=31, value=100)
    assert program.call(uapi.SEMAPHORE_WRITE, args) == 0
    args.value = 7
    assert program.call(uapi.SEMAPHORE_INCREMENT, args) == 0
    args.value = 110
    assert program.call(uapi.SEMAPHORE_DECREMENT, args) == 0
    assert program.call(uapi.SEMAPHORE_READ, args) == 0
    assert ctypes.c_int32(args.value).value == -3


def test_event(program: Program) -> None:
    args = structs.Event(nc_id=1, event_index=255, value=1)
    assert program.call(uapi.EVENT_SET, args) == 0
    args.value = 0
    assert program.call(uapi.EVENT_GET, args) == 0
    assert args.value == 1


def test_device_info(program: Program) -> None:
    info = structs.DeviceInfo()
    ctypes.memset(ctypes.addressof(info), 0xAA, ctypes.sizeof(info))
    assert program.call(uapi.DEVICE_INFO, info) == 0
    assert (info.architecture, info.connected_device_count) == (1, 0)
    assert list(info.bar_size) == [8 << 20, 256 << 20]


def test_own_rings(program: Program) -> None:
    tx, rx = program.alloc(RING * 16, host=True), program.alloc(RING * 16, host=True)
    source, destination = program.alloc(MIB, host=True), program.alloc(MIB)
    data = os.urandom(3 * 5000)
    program.write(source, data)
    init = structs.DmaQueueInit(
        eng_id=0, qid=0, tx_desc_count=RING, rx_desc_count=RING, tx_handle=tx, rx_handle=rx
    )
    assert program.call(uapi.DMA_QUEUE_INIT, init) == 0
    starts = range(0, len(data), 5000)
    for kind, ring, of in (
        (0, tx, [descriptors.pack_tx(program.pa(source) + start, 5000, 1) for start in starts]),
        (1, rx, [descriptors.pack_rx(program.pa(destination) + start, 5000, 1) for start in starts]),
    ):
        packed = ctypes.create_string_buffer(b"".join(of), 16 * len(of))
        args = structs.DmaCopyDescriptors(
            mem_handle=ring, buffer=ctypes.addressof(packed), num_descs=len(of), queue_type=kind
        )
        assert program.call(uapi.DMA_COPY_DESCRIPTORS, args) == 0
    start = structs.DmaQueueCopyStart(eng_id=0, qid=0, tx_desc_count=3, rx_desc_count=3)
    assert program.call(uapi.DMA_QUEUE_COPY_START, start) == 0
    with program.mmap(MIB, program.pa(destination)) as seen:
        while seen[: len(data)] != data:
            pass


def test_reset_and_ready(program: Program) -> None:
    request = structs.DeviceReset(nc_map=uapi.WHOLE_DEVICE)
    assert program.call(uapi.NC_RESET, request) == 0
    assert request.request_id == program.pid
    ready = structs.DeviceReady(request_id=request.request_id, result=9)
    assert program.call(uapi.NC_RESET_READY, ready) == 0
    assert ready.result == 0
    handle = program.alloc(4096)
    program.write(handle, b"after")
    assert program.read(handle, 5) == b"after"


def test_close_leaves_nothing(program: Program) -> None:
    device = program.file.device
    before = {(chunk.pa, chunk.size) for chunk in device.memory}
    other = program.machine.program()
    other.alloc(MIB)
    other.alloc(MIB, host=True)
    other.close()
    assert {(chunk.pa, chunk.size) for chunk in device.memory} == before
