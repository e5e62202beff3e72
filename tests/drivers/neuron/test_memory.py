# SPDX-License-Identifier: Apache-2.0
"""Memory: where it is, what is refused, what a mapping is of (facts, neuron.md §4, §5)."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import random

import pytest

from npubox.core.ranges import PAGE_SIZE
from npubox.drivers.misc.neuron.pools import Pool
from npubox.uapi import neuron as uapi
from npubox.uapi import neuron_structs as structs
from npubox.uapi.neuron import MemType
from tests.core.refaccel import fails
from tests.drivers.neuron.program import Machine, Program

MIB, GIB = 1 << 20, 1 << 30


def alloc(program: Program, **fields: int) -> int:
    handle = ctypes.c_uint64()
    args = structs.MemAllocV2MemType64(mem_handle=ctypes.addressof(handle), **fields)
    program.call(uapi.MEM_ALLOC_V2MT64, args)
    return handle.value


def test_first_fit_in_pages(program: Program) -> None:
    one, two, three = program.alloc(MIB), program.alloc(5000), program.alloc(4096)
    assert [program.pa(handle) for handle in (one, two, three)] == [0, MIB, MIB + 8192]
    program.free(two)
    again = program.alloc(4096)
    assert (again, program.pa(again)) == (two, MIB)


@pytest.mark.parametrize(
    ("channel", "region", "address"), [(0, 3, 3 * GIB), (1, 0, 1 << 36), (1, 3, (1 << 36) + 3 * GIB)]
)
def test_channels_and_regions(program: Program, channel: int, region: int, address: int) -> None:
    whole = program.alloc(GIB, channel=channel, region=region)
    assert program.pa(whole) == address
    with fails(errno.ENOMEM):
        program.alloc(4096, channel=channel, region=region)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"size": 4096, "dram_channel": 2}, errno.EINVAL),
        ({"size": 4096, "dram_channel": 2, "host_memory": 1}, errno.EINVAL),
        ({"size": 4096, "dram_region": 4}, errno.EINVAL),
        ({"size": 4096, "dram_region": 4, "host_memory": 1}, errno.EINVAL),
        ({"size": 4096, "nc_id": 8}, errno.EINVAL),
        ({"size": 1 << 63}, errno.EINVAL),
        ({"size": 4096, "align": 1 << 31}, errno.EINVAL),
        ({"size": 4096, "align": 65536, "host_memory": 1}, errno.EINVAL),
        ({"size": GIB + 4096, "dram_region": 1}, errno.ENOMEM),
        ({"size": 4 * GIB, "host_memory": 1}, errno.ENOMEM),
        ({"size": 0}, errno.EINVAL),
    ],
)
def test_what_is_refused(program: Program, fields: dict[str, int], error: int) -> None:
    with fails(error):
        alloc(program, **fields)


@pytest.mark.parametrize(
    ("align", "multiple"), [(100, 4096), (65536, 65536), (12345, 16384), (1 << 24, 1 << 24)]
)
def test_alignment(program: Program, align: int, multiple: int) -> None:
    program.alloc(4096)
    address = program.pa(alloc(program, size=4096, align=align))
    assert address == multiple


def test_scratchpads_grow_down_and_are_freed_in_reverse(program: Program) -> None:
    first, second = (alloc(program, size=4096, mem_type=MemType.CONTIGUOUS_SCRATCHPAD_DEV) for _ in range(2))
    assert [program.pa(handle) for handle in (first, second)] == [GIB - 4096, GIB - 8192]
    program.fails(errno.EINVAL, uapi.MEM_FREE, structs.MemFree(mem_handle=first))
    with program.mmap(8192, GIB - 8192) as both:
        both[4096:4100] = b"abcd"
    assert program.read(first, 4) == b"abcd"
    program.free(second)
    program.free(first)


def test_host_memory_is_zero_and_below_4_gib(program: Program) -> None:
    for _ in range(2):
        handle = program.alloc(MIB, host=True)
        address = program.pa(handle)
        assert address >> 46 == 1
        assert address & ((1 << 46) - 1) < 1 << 32
        assert program.read(handle, MIB) == bytes(MIB)
        program.write(handle, b"x" * MIB)
        program.free(handle)


def test_handles_that_are_none(program: Program) -> None:
    handle = program.alloc(4096)
    program.free(handle)
    word = ctypes.addressof(ctypes.c_uint64())
    for ioctl, args in (
        (uapi.MEM_FREE, structs.MemFree(mem_handle=handle)),
        (uapi.MEM_FREE, structs.MemFree(mem_handle=0)),
        (uapi.MEM_GET_PA, structs.MemGetPa(mem_handle=9999, pa=word)),
        (uapi.MEM_COPY64, structs.MemCopy64(src_mem_handle=handle, dst_mem_handle=handle, size=4)),
        (uapi.MEMSET64, structs.Memset64(mem_handle=handle, size=4)),
        (uapi.MEM_GET_EXTENDED_INFO, structs.MemGetExtendedInfo(mem_handle=handle)),
    ):
        program.fails(errno.EINVAL, ioctl, args)


def test_ranges_beyond_an_allocation(program: Program) -> None:
    one, other = program.alloc(8192), program.alloc(8192, host=True)
    past = {"src_mem_handle": one, "dst_mem_handle": other, "size": 4096}
    program.fails(errno.EINVAL, uapi.MEM_COPY64, structs.MemCopy64(**past, src_offset=4097))
    program.fails(errno.EINVAL, uapi.MEM_COPY64, structs.MemCopy64(**past, dst_offset=(1 << 64) - 1))
    program.fails(errno.EINVAL, uapi.MEMSET64, structs.Memset64(mem_handle=one, offset=8192, size=1))
    program.fails(errno.EINVAL, uapi.MEM_BUF_COPY64, structs.MemBufCopy64(mem_handle=one, size=8193))


def test_an_allocation_by_an_address_inside(program: Program) -> None:
    handle = program.alloc(MIB)
    args = structs.MemGetMcMmapInfoV2(pa=0x2345)
    assert program.call(uapi.MEM_MC_GET_INFO_V2, args) == 0
    assert (args.mmap_offset, args.size, args.mem_handle) == (0, MIB, handle)
    program.fails(errno.ENOMEM, uapi.MEM_MC_GET_INFO, structs.MemGetMcMmapInfo(pa=MIB))


def test_dump_of_a_channel(program: Program) -> None:
    for size in (8192, 4096):
        program.alloc(size, channel=1)
    found = (structs.MemChunkInfo * 2)()
    args = structs.DumpMemChunks(hbm_index=1, num_entries_in=1, data=ctypes.addressof(found))
    program.fails(errno.EAGAIN, uapi.DUMP_MEM_CHUNKS, args)
    assert args.num_entries_out == 2
    args.num_entries_in = 2
    assert program.call(uapi.DUMP_MEM_CHUNKS, args) == 0
    assert [(chunk.pa, chunk.size) for chunk in found] == [(1 << 36, 8192), ((1 << 36) + 8192, 4096)]


def test_mappings(machine: Machine, program: Program) -> None:
    handle = program.alloc(8192)
    program.write(handle, b"mine")
    with program.mmap(8192, 0) as seen:
        assert seen[:4] == b"mine"
    stranger = machine.program()
    with stranger.mmap(8192, 0) as seen:
        assert seen[:4] == b"mine"
        with pytest.raises(TypeError, match="readonly"):
            seen[:4] = b"else"
    for size, offset in ((4096, 0), (8192, 4096), (4096, 0x800_0000)):
        with fails(errno.EPERM):
            stranger.mmap(size, offset)
    with fails(errno.EINVAL):
        program.file.mmap(8192, mmap.PROT_READ, mmap.MAP_PRIVATE, 0, program.caller)
    reader = machine.program(flags=os.O_RDONLY)
    with fails(errno.EACCES):
        reader.mmap(8192, 0)
    for opened in (stranger, reader):
        opened.close()


def test_a_mapping_to_the_end_of_a_channel(program: Program) -> None:
    handle = program.alloc(GIB, region=3)
    with program.mmap(GIB, program.pa(handle)) as seen:
        seen[GIB - 4 :] = b"last"
    assert program.read(handle, 4, GIB - 4) == b"last"


def test_a_process_that_is_not_attached(machine: Machine, program: Program) -> None:
    child = Program.__new__(Program)
    child.__dict__.update(program.__dict__, caller=program.caller._replace(pid=program.pid + 1))
    handle = ctypes.c_uint64()
    for ioctl, args in (
        (uapi.MEM_FREE, structs.MemFree(mem_handle=1)),
        (uapi.MEM_ALLOC, structs.MemAlloc(size=4096, mem_handle=ctypes.addressof(handle))),
        (uapi.MEM_ALLOC_V2, structs.MemAllocV2(size=4096, mem_handle=ctypes.addressof(handle))),
        (uapi.DMA_QUEUE_INIT, structs.DmaQueueInit()),
    ):
        child.fails(errno.EACCES, ioctl, args)


def test_memory_freed_while_it_is_copied(machine: Machine, program: Program) -> None:
    """Its pages stay until the copy is over, its process gone or not; others copy on."""
    device = program.file.device
    before = {(chunk.pa, chunk.size) for chunk in device.memory}
    other = machine.program()
    host, memory = other.alloc(64 * MIB, host=True), other.alloc(64 * MIB)
    args = structs.MemCopyAsync64(
        src_mem_handle=host, dst_mem_handle=memory, size=64 * MIB, pwait_handle=0xFFFF_FFFF
    )
    assert other.call(uapi.MEM_COPY_ASYNC64, args) == 0
    other.free(host)
    other.close()
    assert {(chunk.pa, chunk.size) for chunk in device.memory} == before
    mine, there = program.alloc(4096, host=True), program.alloc(4096)
    assert program.pa(there) == 64 * MIB, "the copy's destination is not given away"
    program.write(mine, b"mine")
    program.copy(mine, there, 4096)
    assert program.read(there, 4) == b"mine"
    again = structs.MemCopyAsync64(
        src_mem_handle=mine, dst_mem_handle=there, size=4096, pwait_handle=0xFFFF_FFFF
    )
    assert program.call(uapi.MEM_COPY_ASYNC64, again) == 0
    wait = structs.MemCopyAsyncWait(src_mem_handle=mine, dst_mem_handle=there, pwait_handle=1)
    assert program.call(uapi.MEM_COPY_ASYNC_WAIT, wait) == 0
    assert program.pa(program.alloc(4096)) == 0, "the copy that nobody waited for is over"
    assert not machine.chips[0].faults


def test_dma_buf(program: Program) -> None:
    opened = program.machine.program(pid=os.getpid())
    handle = opened.alloc(8192)
    number = ctypes.c_int(-1)
    with opened.mmap(8192, opened.pa(handle)) as seen:
        seen[4096:4100] = b"page"
        address = ctypes.addressof(ctypes.c_char.from_buffer(seen))
        args = structs.DmabufFd(va=address + 4096, size=4096, fd=ctypes.addressof(number))
        assert opened.call(uapi.DMABUF_FD, args) == 0
        shared = opened.caller.files.lookup(number.value)
        assert shared is not None
        backing = shared.mmap(4096, mmap.PROT_READ, mmap.MAP_SHARED, 0, opened.caller)
        with mmap.mmap(backing.fd, 4096, prot=mmap.PROT_READ, offset=backing.offset) as page:
            assert page[:4] == b"page"
        args.size = 8192
        opened.fails(errno.EINVAL, uapi.DMABUF_FD, args)
    os.close(number.value)
    opened.close()


def test_pools_against_a_bitmap() -> None:
    """Random allocations and frees: always the lowest place there is, and nothing overlaps."""
    pages, rng = 64, random.Random(7)
    pool, taken, held = Pool(0, pages * PAGE_SIZE), [False] * pages, dict[int, int]()
    for _ in range(2000):
        if held and rng.random() < 0.45:
            at, count = held.popitem() if rng.random() < 0.5 else (start := next(iter(held)), held.pop(start))
            pool.free(at * PAGE_SIZE, count * PAGE_SIZE)
            taken[at : at + count] = [False] * count
            continue
        count, step = rng.randint(1, 9), rng.choice([1, 1, 2, 4, 16])
        fits = (at for at in range(0, pages - count + 1, step) if not any(taken[at : at + count]))
        expected = next(fits, None)
        if expected is None:
            with fails(errno.ENOMEM):
                pool.allocate(count * PAGE_SIZE, step * PAGE_SIZE)
            continue
        assert pool.allocate(count * PAGE_SIZE, step * PAGE_SIZE) == expected * PAGE_SIZE
        taken[expected : expected + count] = [True] * count
        held[expected] = count
    assert pool.free_bytes == taken.count(False) * PAGE_SIZE
