# SPDX-License-Identifier: Apache-2.0
"""Runs a prepared job (tests/serve/jobs.py) with nothing but the standard library, no ctypes and nothing of
npubox: python through_fcntl.py JOB OUTPUT"""

import array
import fcntl
import mmap
import os
import struct
import sys
from typing import NamedTuple

NODE = "/dev/accel/accel0"
OUT, BOTH = 0x4000_0000, 0xC000_0000
FOREVER = (1 << 63) - 1


class Job(NamedTuple):
    stream: "array.array[int]"
    constants: bytes
    values: bytes
    arena: int
    sram: int
    input_at: int
    output: slice


def call(node: int, direction: int, number: int, layout: str, *values: int) -> tuple[int, ...]:
    """One ioctl; the fields of its argument as they came back."""
    argument = bytearray(struct.pack(layout, *values))
    fcntl.ioctl(node, direction | len(argument) << 16 | ord("d") << 8 | number, argument, True)
    return struct.unpack(layout, argument)


def buffer(node: int, size: int) -> tuple[int, mmap.mmap]:
    _, _, handle = call(node, BOTH, 0x41, "=QII", size, 0, 0)
    _, _, offset = call(node, BOTH, 0x43, "=IIQ", handle, 0, 0)
    return handle, mmap.mmap(node, size, offset=offset)


def close(node: int, handle: int) -> None:
    call(node, OUT, 0x09, "=II", handle, 0)


def read_job(path: str) -> Job:
    with open(path, "rb") as file:
        sizes = struct.unpack("<8I", file.read(32))
        stream, constants, arena, sram, values, output, input_at, output_at = sizes
        return Job(
            array.array("B", file.read(stream)),
            file.read(constants),
            file.read(values),
            arena,
            sram,
            input_at,
            slice(output_at, output_at + output),
        )


def submit(node: int, job: Job) -> tuple[int, mmap.mmap]:
    """Hand the job to the NPU; handle and mapping of its arena. The job keeps the other objects."""
    constants_handle, constants = buffer(node, len(job.constants))
    arena_handle, arena = buffer(node, job.arena)
    constants[:] = job.constants
    constants.close()
    arena[job.input_at : job.input_at + len(job.values)] = job.values
    address, size = job.stream.buffer_info()
    *_, stream_handle, _ = call(node, BOTH, 0x44, "=IIQII", size, 0, address, 0, 0)
    regions = [constants_handle, arena_handle, 0, 0, 0, 0, 0, 0]
    task = array.array("I", [stream_handle, job.sram, *regions])
    call(node, BOTH, 0x45, "=QII", task.buffer_info()[0], 1, 0)
    for handle in (stream_handle, constants_handle):
        close(node, handle)
    return arena_handle, arena


def wait(node: int, handle: int) -> None:
    call(node, BOTH, 0x42, "=IIq", handle, 0, FOREVER)


def main(path: str, output: str) -> None:
    job = read_job(path)
    node = os.open(NODE, os.O_RDWR | os.O_CLOEXEC)
    info = array.array("I", [0, 0, 0])
    call(node, BOTH, 0x40, "=IIQ", 0, 12, info.buffer_info()[0])
    assert info[0] >> 28 == 1, f"ID {info[0]:#x}"
    handle, arena = submit(node, job)
    wait(node, handle)
    with open(output, "wb") as target:
        target.write(arena[job.output])
    arena.close()
    close(node, handle)
    os.close(node)


if __name__ == "__main__":
    main(*sys.argv[1:])
