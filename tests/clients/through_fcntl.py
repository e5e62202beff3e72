# SPDX-License-Identifier: Apache-2.0
"""Runs a prepared job (tests/serve/jobs.py) with nothing but the standard library, no ctypes and nothing of
npubox: python through_fcntl.py JOB OUTPUT"""

import array
import fcntl
import mmap
import os
import struct
import sys

NODE = "/dev/accel/accel0"
OUT, BOTH = 0x4000_0000, 0xC000_0000
FOREVER = (1 << 63) - 1


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


def main(job: str, output: str) -> None:
    with open(job, "rb") as file:
        sizes = struct.unpack("<8I", file.read(32))
        stream_size, constants_size, arena_size, sram, input_size, output_size, input_at, output_at = sizes
        stream = array.array("B", file.read(stream_size))
        constants, values = file.read(constants_size), file.read(input_size)
    node = os.open(NODE, os.O_RDWR | os.O_CLOEXEC)
    info = array.array("I", [0, 0, 0])
    call(node, BOTH, 0x40, "=IIQ", 0, 12, info.buffer_info()[0])
    assert info[0] >> 28 == 1, f"ID {info[0]:#x}"

    constants_handle, constants_memory = buffer(node, constants_size)
    arena_handle, arena = buffer(node, arena_size)
    constants_memory[:] = constants
    arena[input_at : input_at + input_size] = values
    address = stream.buffer_info()[0]
    *_, stream_handle, _ = call(node, BOTH, 0x44, "=IIQII", stream_size, 0, address, 0, 0)
    task = array.array("I", [stream_handle, sram, constants_handle, arena_handle, 0, 0, 0, 0, 0, 0])
    call(node, BOTH, 0x45, "=QII", task.buffer_info()[0], 1, 0)
    close(node, stream_handle)
    call(node, BOTH, 0x42, "=IIq", arena_handle, 0, FOREVER)
    result = arena[output_at : output_at + output_size]
    for handle, memory in ((constants_handle, constants_memory), (arena_handle, arena)):
        memory.close()
        close(node, handle)
    os.close(node)
    with open(output, "wb") as target:
        target.write(result)


if __name__ == "__main__":
    main(*sys.argv[1:])
