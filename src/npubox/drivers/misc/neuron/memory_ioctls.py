# SPDX-License-Identifier: Apache-2.0
"""ioctls on memory: allocate, free, look up (facts, neuron.md §3.2, §5)."""

from __future__ import annotations

import errno

from npubox.drivers.misc.neuron.call import Call, ioctl
from npubox.drivers.misc.neuron.memory import Chunk, Lifetime, Request
from npubox.hw.neuron.address import DRAM_CHANNELS
from npubox.uapi import neuron as uapi
from npubox.uapi import neuron_structs as structs
from npubox.uapi.neuron import MemType

AllocArgs = structs.MemAlloc | structs.MemAllocV2 | structs.MemAllocV2MemType | structs.MemAllocV2MemType64
MODULES_VERSION = 0  # what the module leaves in `version`: it is not initialised
MODULES_POINTER = 0xFFFF_8880_0000_0000  # where its kernel pointers lie


@ioctl(uapi.MEM_ALLOC, attached=True)
@ioctl(uapi.MEM_ALLOC_V2, uapi.MEM_ALLOC_V2MT, uapi.MEM_ALLOC_V2MT64)
def mem_alloc(call: Call, args: AllocArgs) -> None:
    if call.pid not in call.device.processes:
        # The module crashes the kernel for the calls that escape its attach check.
        raise OSError(errno.EACCES, f"process {call.pid} is not attached")
    if call.strict and not args.size:
        raise OSError(errno.EINVAL, "an allocation of 0 bytes")
    host = bool(args.host_memory)
    request = Request(
        size=args.size,
        host=host,
        channel=args.dram_channel,
        region=args.dram_region,
        core=args.nc_id,
        align=getattr(args, "align", 0),
        mem_type=getattr(args, "mem_type", MemType.UNKNOWN_HOST if host else MemType.UNKNOWN_DEV),
    )
    memory = call.device.memory
    chunk = memory.allocate(request, Lifetime.PROCESS, call.pid)
    try:
        call.write_u64(args.mem_handle, memory.handle_of(chunk))
    except OSError:
        memory.free(chunk)
        raise


@ioctl(uapi.MEM_FREE, attached=True)
def mem_free(call: Call, args: structs.MemFree) -> None:
    call.device.free(call.chunk(args.mem_handle))


@ioctl(uapi.MEM_GET_PA, attached=True)
def mem_get_pa(call: Call, args: structs.MemGetPa) -> None:
    call.write_u64(args.pa, call.chunk(args.mem_handle).pa)


@ioctl(uapi.MEM_GET_INFO, attached=True)
def mem_get_info(call: Call, args: structs.MemGetInfo) -> None:
    chunk = call.chunk(args.mem_handle)
    for pointer in (args.pa, args.mmap_offset):
        if pointer:
            call.write_u64(pointer, chunk.pa)


@ioctl(uapi.MEM_GET_EXTENDED_INFO)
def mem_get_extended_info(call: Call, args: structs.MemGetExtendedInfo) -> int | None:
    try:
        chunk = call.chunk(args.mem_handle)
    except OSError as error:
        if call.strict or error.errno != errno.EINVAL:
            raise
        return errno.EINVAL  # positive, as the module has it
    args.mem_handle = args.mem_handle if call.strict else MODULES_POINTER + 64 * args.mem_handle
    args.version = 1 if call.strict else MODULES_VERSION
    args.host_memory = chunk.host
    args.mmap_offset = args.pa = chunk.pa
    args.pid = chunk.owner
    args.size = chunk.size
    return None


@ioctl(uapi.MEM_MC_GET_INFO, uapi.MEM_MC_GET_INFO_V2)
def mem_mc_get_info(call: Call, args: structs.MemGetMcMmapInfo | structs.MemGetMcMmapInfoV2) -> None:
    chunk = call.device.memory.at(args.pa)
    if chunk is None:
        raise OSError(errno.ENOMEM, f"nothing is allocated at {args.pa:#x}")
    call.check_owner(chunk)
    args.mmap_offset, args.size = chunk.pa, chunk.size
    if isinstance(args, structs.MemGetMcMmapInfoV2):
        args.mem_handle = call.device.memory.handle_of(chunk)


@ioctl(uapi.DUMP_MEM_CHUNKS)
def dump_mem_chunks(call: Call, args: structs.DumpMemChunks) -> None:
    if args.hbm_index >= DRAM_CHANNELS:
        raise OSError(errno.EINVAL, f"the device has no memory channel {args.hbm_index}")
    found = [
        chunk
        for chunk in call.device.memory
        if not chunk.host
        and chunk.channel == args.hbm_index
        and (not call.driver.isolate or chunk.owner == call.pid)
    ]
    args.num_entries_out = len(found)
    if len(found) > args.num_entries_in:
        raise OSError(errno.EAGAIN, f"{len(found)} allocations do not fit into {args.num_entries_in} entries")
    if found:
        call.write(args.data, b"".join(bytes(_chunk_info(chunk)) for chunk in found))


def _chunk_info(chunk: Chunk) -> structs.MemChunkInfo:
    return structs.MemChunkInfo(pa=chunk.pa, size=chunk.size, mem_type=chunk.mem_type)
