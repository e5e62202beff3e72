# SPDX-License-Identifier: Apache-2.0
"""ioctls that copy: allocations, user memory, engines' memories (facts, neuron.md §3.2, §6.7)."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterator
from itertools import chain
from typing import TypeVar

from npubox.drivers.misc.neuron.call import Call, CopyFault, ioctl
from npubox.drivers.misc.neuron.copies import (
    MOST_ASYNC_BYTES,
    PIECE,
    Context,
    CopyQueue,
    Piece,
    pieces,
)
from npubox.drivers.misc.neuron.memory import MOST_CORES, Chunk
from npubox.drivers.misc.neuron.work import Steps, Work
from npubox.hw.neuron.address import CORE_WINDOW_SIZE, CORE_WINDOWS, CORES
from npubox.uapi import neuron as uapi
from npubox.uapi import neuron_structs as structs

T = TypeVar("T")
START_ASYNC = -1
SYNCHRONOUS = 0
CopyArgs = structs.MemCopy | structs.MemCopy64
AsyncArgs = structs.MemCopyAsync | structs.MemCopyAsync64
BufArgs = structs.MemBufCopy | structs.MemBufCopy64
ProgramArgs = structs.ProgramEngine | structs.ProgramEngineNc | structs.ProgramEngineNc64


def _ends(call: Call, args: CopyArgs | AsyncArgs) -> tuple[Chunk, Chunk, CopyQueue]:
    """Source, destination, and the queue that copies: the source's core's if that is device memory."""
    source, destination = call.chunk(args.src_mem_handle), call.chunk(args.dst_mem_handle)
    source.check_range(args.src_offset, args.size)
    destination.check_range(args.dst_offset, args.size)
    core = destination.core if source.host else source.core
    return source, destination, call.device.copy_queue(core)


def _length(call: Call, size: int) -> Iterator[int]:
    """The size to copy: none for 0, for which the module's length field makes 64 KiB."""
    if size or not call.strict:
        yield size or PIECE


@ioctl(uapi.MEM_COPY, attached=True)
@ioctl(uapi.MEM_COPY64)
def mem_copy(call: Call, args: CopyArgs) -> Work:
    source, destination, queue = _ends(call, args)
    start, end = source.pa + args.src_offset, destination.pa + args.dst_offset
    batches = chain(*(pieces(start, end, size) for size in _length(call, args.size)))
    return call.work(holding(call, queue.transfer(batches), source, destination))


@ioctl(uapi.MEM_COPY_ASYNC, attached=True)
@ioctl(uapi.MEM_COPY_ASYNC64)
def mem_copy_async(call: Call, args: AsyncArgs) -> Work:
    """Start a copy, then wait for the one before. `host_prefetch_addr` needs nothing: pages are there."""
    source, destination, queue = _ends(call, args)
    before = ctypes.c_int32(args.pwait_handle).value
    if not START_ASYNC <= before <= Context.ASYNC_2:
        raise OSError(errno.EINVAL, f"{before} is no handle of an asynchronous copy")
    if args.size > MOST_ASYNC_BYTES:
        raise OSError(errno.EINVAL, f"an asynchronous copy has at most {MOST_ASYNC_BYTES} bytes")
    batch = list(pieces(source.pa + args.src_offset, destination.pa + args.dst_offset, args.size))
    if before == SYNCHRONOUS:
        args.wait_handle = SYNCHRONOUS
        return call.work(holding(call, queue.transfer(iter(batch)), source, destination))
    return call.work(_start_async(queue, batch, before, args, (source, destination)))


def _start_async(
    queue: CopyQueue, batch: list[Piece], before: int, args: AsyncArgs, held: tuple[Chunk, ...]
) -> Steps[None]:
    ticket = yield from queue.turns.take()
    try:
        if before != START_ASYNC and not queue.in_use(Context(before)):
            raise OSError(errno.EINVAL, f"no asynchronous copy {before} is under way")
        mine = Context.ASYNC_2 if before == Context.ASYNC_1 else Context.ASYNC_1
        if queue.in_use(mine):
            yield from queue.wait(mine)  # whoever began it did not wait for it
        queue.start(batch, mine, held)
        args.wait_handle = mine
        if before != START_ASYNC:
            yield from queue.wait(Context(before))
    finally:
        queue.turns.leave(ticket)


@ioctl(uapi.MEM_COPY_ASYNC_WAIT, attached=True)
def mem_copy_async_wait(call: Call, args: structs.MemCopyAsyncWait) -> Work:
    source, destination = call.chunk(args.src_mem_handle), call.chunk(args.dst_mem_handle)
    queue = call.device.copy_queue(destination.core if source.host else source.core)
    if args.pwait_handle not in (Context.ASYNC_1, Context.ASYNC_2):
        raise OSError(errno.EINVAL, f"{args.pwait_handle} is no handle of an asynchronous copy")
    context = Context(args.pwait_handle)
    if not queue.in_use(context):
        raise OSError(errno.EINVAL, f"no asynchronous copy {context} is under way")

    def steps() -> Steps[None]:
        ticket = yield from queue.turns.take()
        try:
            if queue.in_use(context):
                yield from queue.wait(context)
        finally:
            queue.turns.leave(ticket)

    return call.work(steps())


@ioctl(uapi.MEM_BUF_COPY, uapi.MEM_BUF_COPY64)
def mem_buf_copy(call: Call, args: BufArgs) -> int | Work:
    return _buf_copy(call, args)


def _buf_copy(call: Call, args: BufArgs) -> int | Work:
    chunk = call.chunk(args.mem_handle)
    chunk.check_range(args.offset, args.size)
    if args.copy_to_mem_handle:
        data = call.read(args.buffer, args.size)
        if chunk.host:
            call.device.memory.write(chunk, args.offset, data)
            return 0
        queue = call.device.copy_queue(chunk.core)
        return call.work(holding(call, copy_in(call, queue, data, chunk.pa + args.offset), chunk))
    if chunk.host:
        call.write(args.buffer, call.device.memory.read(chunk, args.offset, args.size))
        return 0
    queue = call.device.copy_queue(chunk.core)
    steps = holding(call, copy_out(call, queue, chunk.pa + args.offset, args.size), chunk)
    return call.work(steps, lambda data: _write_pieces(call, args.buffer, data))


@ioctl(uapi.MEM_BUF_ZEROCOPY64)
def mem_buf_zerocopy(call: Call, args: structs.MemBufCopy64) -> int | Work:
    """As MEM_BUF_COPY64: from user space pages of another process cannot be pinned, so they are copied."""
    try:
        if not args.copy_to_mem_handle and args.size:
            call.read(args.buffer, 1)
        return _buf_copy(call, args)
    except CopyFault as fault:
        raise OSError(errno.ENOMEM, "the pages of the buffer cannot be pinned") from fault


def holding(call: Call, steps: Steps[T], *chunks: Chunk) -> Steps[T]:
    """An operation during which nobody else gets the pages of allocations, though they be freed."""
    memory = call.device.memory
    memory.hold(*chunks)
    try:
        return (yield from steps)
    finally:
        memory.drop(*chunks)


def copy_in(call: Call, queue: CopyQueue, data: bytes, destination: int) -> Steps[None]:
    """Bytes to device memory, by way of the queue's bounce buffer."""
    view = memoryview(data)
    ticket = yield from queue.turns.take()
    try:
        for piece in pieces(0, destination, len(data)):
            call.device.memory.write(queue.bounce, 0, view[piece.source : piece.source + piece.size])
            queue.start([Piece(queue.bounce.pa, piece.destination, piece.size)], Context.SYNC)
            yield from queue.wait(Context.SYNC)
    finally:
        queue.turns.leave(ticket)


def copy_out(call: Call, queue: CopyQueue, source: int, size: int) -> Steps[bytes]:
    """Bytes of device memory, by way of the queue's bounce buffer."""
    data = bytearray()
    ticket = yield from queue.turns.take()
    try:
        for piece in pieces(source, 0, size):
            queue.start([Piece(piece.source, queue.bounce.pa, piece.size)], Context.SYNC)
            yield from queue.wait(Context.SYNC)
            data += call.device.memory.read(queue.bounce, 0, piece.size)
    finally:
        queue.turns.leave(ticket)
    return bytes(data)


def _write_pieces(call: Call, address: int, data: bytes) -> None:
    for start in range(0, len(data), PIECE):
        call.write(address + start, data[start : start + PIECE])


@ioctl(uapi.MEMSET, uapi.MEMSET64)
def memset(call: Call, args: structs.Memset | structs.Memset64) -> int | Work:
    chunk = call.chunk(args.mem_handle)
    chunk.check_range(args.offset, args.size)
    pattern = bytes([args.value & 0xFF]) * min(args.size, PIECE)
    memory = call.device.memory
    if chunk.host:
        for start in range(0, args.size, PIECE):
            memory.write(chunk, args.offset + start, pattern[: args.size - start])
        return 0
    queue = call.device.copy_queue(chunk.core)
    first = chunk.pa + args.offset
    rest = (
        Piece(first, piece.destination, piece.size) for piece in pieces(0, first, args.size) if piece.source
    )

    def steps() -> Steps[None]:
        if not pattern:
            return
        memory.write(queue.pattern, 0, pattern)
        yield from queue.transfer(iter([Piece(queue.pattern.pa, first, len(pattern))]))
        yield from queue.transfer(rest)

    return call.work(holding(call, steps(), chunk))


@ioctl(uapi.PROGRAM_ENGINE)
@ioctl(uapi.PROGRAM_ENGINE_NC, uapi.PROGRAM_ENGINE_NC64)
def program_engine(call: Call, args: ProgramArgs) -> Work:
    """User memory from `offset` on to a core's window at `dst` + `offset`."""
    core = getattr(args, "nc_id", 0)
    start = args.dst + args.offset
    if core >= MOST_CORES:
        raise OSError(errno.ENOMEM, f"no device has a core {core}")
    inside = args.dst >= CORE_WINDOWS and start + args.size <= CORE_WINDOWS + CORES * CORE_WINDOW_SIZE
    if not inside:
        raise OSError(errno.ENOMEM, f"{args.dst:#x} lies in no core's window")
    queue = call.device.copy_queue(core)
    for reached in range((start - CORE_WINDOWS) // CORE_WINDOW_SIZE, CORES):
        if CORE_WINDOWS + reached * CORE_WINDOW_SIZE < start + args.size:
            call.check_core(reached)
    return call.work(copy_in(call, queue, call.read(args.buffer + args.offset, args.size), start))
