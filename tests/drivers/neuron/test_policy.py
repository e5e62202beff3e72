# SPDX-License-Identifier: Apache-2.0
"""The module's defects, answered as it does or strictly (docs/neuron.md)."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterator

import pytest

from npubox.drivers.misc.neuron.info_ioctls import BAR_ADDRESSES
from npubox.hw.neuron import descriptors
from npubox.hw.neuron.misc_ram import BASE as MISC
from npubox.hw.neuron.pci import Bar
from npubox.uapi import neuron as uapi
from npubox.uapi import neuron_structs as structs
from tests.drivers.neuron.program import Machine, Program

NOWHERE = 0x10000
APB = BAR_ADDRESSES[Bar.APB]


def both(strict: Program, module: Program) -> Iterator[tuple[Program, bool]]:
    yield strict, True
    yield module, False


def write_bar(program: Program, offset: int, value: int = 0) -> int:
    address, data = ctypes.c_uint64(APB + offset), ctypes.c_uint32(value)
    args = structs.BarRw(address=ctypes.addressof(address), data=ctypes.addressof(data), count=1)
    return program.call(uapi.BAR_WRITE, args)


def test_faults_of_user_memory(program: Program, as_module: Program) -> None:
    for ioctl, left in ((uapi.DEVICE_BDF, 8), (uapi.MEM_COPY, 32), (uapi.DMA_QUEUE_RELEASE, 8)):
        program.fails(errno.EFAULT, ioctl)
        assert as_module.call(ioctl) == left
    for other in (uapi.MEM_ALLOC, uapi.DMA_QUEUE_INIT, uapi.DMA_QUEUE_INIT_BATCH):
        program.fails(errno.EFAULT, other)
        as_module.fails(errno.EACCES, other)


def test_a_bad_buffer_of_a_copy(program: Program, as_module: Program) -> None:
    for opened, strict in both(program, as_module):
        device, host = opened.alloc(1 << 20), opened.alloc(1 << 20, host=True)
        for handle, left in ((device, 65536), (host, 600_000)):
            args = structs.MemBufCopy64(mem_handle=handle, buffer=NOWHERE, size=600_000)
            if strict:
                opened.fails(errno.EFAULT, uapi.MEM_BUF_COPY64, args)
            else:
                assert opened.call(uapi.MEM_BUF_COPY64, args) == left
        opened.fails(errno.ENOMEM, uapi.MEM_BUF_ZEROCOPY64, args)


def test_a_handle_that_nobody_gets_is_not_kept(program: Program) -> None:
    before = len(list(program.file.device.memory))
    args = structs.MemAlloc(size=4096, mem_handle=NOWHERE)
    program.fails(errno.EFAULT, uapi.MEM_ALLOC, args)
    assert len(list(program.file.device.memory)) == before


def test_extended_info(program: Program, as_module: Program) -> None:
    for opened, strict in both(program, as_module):
        handle = opened.alloc(4096)
        args = structs.MemGetExtendedInfo(mem_handle=handle)
        assert opened.call(uapi.MEM_GET_EXTENDED_INFO, args) == 0
        assert (args.mem_handle == handle, args.version) == ((True, 1) if strict else (False, 0))
        assert (args.pid, args.size) == (opened.pid, 4096)
        bad = structs.MemGetExtendedInfo(mem_handle=4321)
        if strict:
            opened.fails(errno.EINVAL, uapi.MEM_GET_EXTENDED_INFO, bad)
        else:
            assert opened.call(uapi.MEM_GET_EXTENDED_INFO, bad) == errno.EINVAL


def test_copies_of_nothing(program: Program, as_module: Program) -> None:
    for opened, strict in both(program, as_module):
        one, other = opened.alloc(1 << 17), opened.alloc(1 << 17, host=True)
        opened.write(other, b"\7" * (1 << 17))
        opened.call(uapi.MEMSET64, structs.Memset64(mem_handle=one, size=1 << 17))
        opened.copy(other, one, 0)
        assert opened.read(one, 1 << 17).count(7) == (0 if strict else 65536)


def test_no_memory_at_all(program: Program, as_module: Program) -> None:
    handle = ctypes.addressof(ctypes.c_uint64())
    program.fails(errno.EINVAL, uapi.MEM_ALLOC, structs.MemAlloc(mem_handle=handle))
    as_module.fails(errno.ENOMEM, uapi.MEM_ALLOC, structs.MemAlloc(mem_handle=handle))


def test_events_and_semaphores_out_of_range(program: Program, as_module: Program) -> None:
    program.fails(errno.EINVAL, uapi.EVENT_GET, structs.Event(event_index=256))
    assert as_module.call(uapi.EVENT_GET, structs.Event(event_index=256)) == 0
    wrapped = structs.Semaphore(semaphore_index=0x1_0003, value=9)
    program.fails(errno.EINVAL, uapi.SEMAPHORE_WRITE, wrapped)
    assert as_module.call(uapi.SEMAPHORE_WRITE, wrapped) == 0
    third = structs.Semaphore(semaphore_index=3)
    assert as_module.call(uapi.SEMAPHORE_READ, third) == 0
    assert third.value == 9
    for opened in (program, as_module):
        opened.fails(errno.E2BIG, uapi.SEMAPHORE_READ, structs.Semaphore(nc_id=4))
        opened.fails(errno.EINVAL, uapi.SEMAPHORE_READ, structs.Semaphore(semaphore_index=32))
        opened.fails(errno.EINVAL, uapi.EVENT_SET, structs.Event(event_index=257))


def test_registers_that_are_the_drivers_own(program: Program, as_module: Program) -> None:
    for opened, strict in both(program, as_module):
        assert write_bar(opened, MISC + 0xC0, 5) == 0
        assert opened.csr(0x0FFF_F000_0000 + MISC + 0xC0) == 5
        for offset in (0x41028, 0x4102C, 0x41038, 0x61038, 0x800_000):
            with pytest.raises(OSError, match="BAR 0"):
                write_bar(opened, offset)
        for offset in (MISC + 0x1F0, MISC + 0x1D8):
            if strict:
                with pytest.raises(OSError, match="driver's own"):
                    write_bar(opened, offset)
            else:
                assert write_bar(opened, offset) == 0


def test_states_that_are_none(program: Program, as_module: Program) -> None:
    program.fails(errno.EINVAL, uapi.DMA_ENG_SET_STATE, structs.DmaEngSetState(state=1))
    assert as_module.call(uapi.DMA_ENG_SET_STATE, structs.DmaEngSetState(state=1)) == 0


def test_rings_of_unknown_memory(program: Program, as_module: Program) -> None:
    args = structs.DmaQueueInit(eng_id=1, tx_desc_count=32, rx_desc_count=32, tx_handle=77, rx_handle=78)
    program.fails(errno.EINVAL, uapi.DMA_QUEUE_INIT, args)
    assert as_module.call(uapi.DMA_QUEUE_INIT, args) == 0
    start = structs.DmaQueueCopyStart(eng_id=1, tx_desc_count=1, rx_desc_count=1)
    as_module.fails(errno.EINVAL, uapi.DMA_QUEUE_COPY_START, start)


def test_the_drivers_own_queue(program: Program, as_module: Program) -> None:
    for opened, strict in both(program, as_module):
        handle = opened.alloc(4096, host=True)
        args = structs.DmaQueueInit(
            eng_id=5, qid=15, tx_desc_count=32, rx_desc_count=32, tx_handle=handle, rx_handle=handle
        )
        if strict:
            opened.fails(errno.EBUSY, uapi.DMA_QUEUE_INIT, args)
            continue
        assert opened.call(uapi.DMA_QUEUE_INIT, args) == 0
        memory = opened.alloc(4096, core=1)
        with pytest.raises(OSError, match="timeout on core 1"):
            opened.write(memory, b"lost")
        opened.write(memory, b"kept")
        assert opened.read(memory, 4) == b"kept"


def test_descriptors_of_a_ring_in_device_memory(program: Program, as_module: Program) -> None:
    for opened, strict in both(program, as_module):
        ring = opened.alloc(64 * 16)
        written = b"".join(descriptors.pack_rx(index * 4096, index + 1, 1) for index in range(8))
        opened.write(ring, written)
        for port in (0, 1):
            init = structs.DmaQueueInit(
                eng_id=1, tx_desc_count=64, rx_desc_count=64, tx_handle=ring, rx_handle=ring, axi_port=port
            )
            assert opened.call(uapi.DMA_QUEUE_INIT, init) == 0
            found = ctypes.create_string_buffer(2 * 16)
            args = structs.DmaDescriptorCopyout(
                eng_id=1, type=1, start_index=3, count=2, buffer=ctypes.addressof(found)
            )
            if strict:
                assert opened.call(uapi.DMA_DESCRIPTOR_COPYOUT, args) == 0
                assert found.raw == written[3 * 16 : 5 * 16]
            elif port:
                opened.fails(errno.EINVAL, uapi.DMA_DESCRIPTOR_COPYOUT, args)
            else:
                assert opened.call(uapi.DMA_DESCRIPTOR_COPYOUT, args) == 0
                assert found.raw == written[: 2 * 16]


def test_notification_engines_that_do_not_exist(program: Program, as_module: Program) -> None:
    program.fails(
        errno.EINVAL, uapi.NOTIFICATIONS_INIT_V1, structs.NotificationsInitV1(engine_index=6, size=4096)
    )
    found = []
    for kind, engine in ((0, 6), (1, 0)):
        args = structs.NotificationsInitV1(nq_type=kind, engine_index=engine, size=4096)
        assert as_module.call(uapi.NOTIFICATIONS_INIT_V1, args) == 0
        found.append(args.mmap_offset)
    assert found[0] == found[1], "TRACE of engine 6 and NOTIFY of engine 0 have one id"


@pytest.mark.parametrize("engine", [12, 131, 1 << 31])
def test_what_crashes_the_kernel_is_refused(machine: Machine, as_module: Program, engine: int) -> None:
    state = ctypes.addressof(structs.NeuronDmaQueueState())
    for ioctl, args in (
        (uapi.DMA_ENG_SET_STATE, structs.DmaEngSetState(eng_id=engine)),
        (uapi.DMA_ENG_GET_STATE, structs.DmaEngGetState(eng_id=engine, state=state)),
        (uapi.DMA_QUEUE_GET_STATE, structs.DmaQueueGetState(eng_id=engine, tx=state, rx=state)),
        (uapi.DMA_ACK_COMPLETED, structs.DmaAckCompleted(eng_id=engine)),
        (uapi.BAR_READ, structs.BarRw(count=0)),
        (uapi.NOTIFICATIONS_INIT_V1, structs.NotificationsInitV1(nq_type=4, size=4096)),
        (uapi.DEVICE_BDF_EXT, structs.DeviceBdfExt(nd_index=64)),
    ):
        as_module.fails(errno.EINVAL, ioctl, args)
