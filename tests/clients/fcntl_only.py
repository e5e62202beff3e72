# SPDX-License-Identifier: Apache-2.0
"""Runs a prepared job with nothing but the standard library: fcntl_only.py JOB OUTPUT [fork]

With `fork` a child submits and waits on what its parent opened, mapped and filled, and sends the
descriptor on to a third process that reads the result. JOB is as in mesa_like.c.
"""

from __future__ import annotations

import array
import fcntl
import mmap
import os
import socket
import struct
import sys
from pathlib import Path

BO_CREATE, BO_WAIT, BO_MMAP_OFFSET = 0xC0106441, 0xC0106442, 0xC0106443
CMDSTREAM_BO_CREATE, SUBMIT, GEM_CLOSE = 0xC0186444, 0xC0106445, 0x40086409
FOREVER = (1 << 63) - 1


def call(fd: int, request: int, layout: str, *values: int) -> tuple[int, ...]:
    argument = bytearray(struct.pack(layout, *values))
    fcntl.ioctl(fd, request, argument)
    return struct.unpack(layout, argument)


def create(fd: int, size: int) -> tuple[int, mmap.mmap]:
    handle = call(fd, BO_CREATE, "QII", size, 0, 0)[2]
    offset = call(fd, BO_MMAP_OFFSET, "IIQ", handle, 0, 0)[2]
    return handle, mmap.mmap(fd, size, mmap.MAP_SHARED, offset=offset)


def pinned(data: bytes) -> tuple[array.array[int], int]:
    """An array with its address; it must be kept."""
    kept = array.array("B", data)
    return kept, kept.buffer_info()[0]


def main(job_file: str, output_file: str, *mode: str) -> None:
    content = Path(job_file).read_bytes()
    head = struct.unpack_from("<8I", content)
    stream_size, constant_size, arena_size, sram, input_size, output_size, input_at, output_at = head
    stream = content[32 : 32 + stream_size]
    constants = content[32 + stream_size : 32 + stream_size + constant_size]
    values = content[-input_size:]

    fd = os.open("/dev/accel/accel0", os.O_RDWR | os.O_CLOEXEC)
    kept, where = pinned(stream)
    command = call(fd, CMDSTREAM_BO_CREATE, "IIQII", stream_size, 0, where, 0, 0)[3]
    constants_bo = 0
    if constant_size:
        constants_bo, memory = create(fd, constant_size)
        memory[:] = constants
    arena_bo, arena = create(fd, arena_size)
    arena[input_at : input_at + input_size] = values

    def submit() -> None:
        job, place = pinned(struct.pack("2I8I", command, sram, constants_bo, arena_bo, *(0,) * 6))
        call(fd, SUBMIT, "QII", place, 1, 0)
        call(fd, BO_WAIT, "IIq", arena_bo, 0, FOREVER)
        del job

    if mode:
        left, right = socket.socketpair()
        if os.fork() == 0:
            submit()
            socket.send_fds(left, [struct.pack("I", arena_bo)], [fd])
            os._exit(0)
        if os.fork() == 0:
            _, fds, _, _ = socket.recv_fds(right, 4, 1)
            offset = call(fds[0], BO_MMAP_OFFSET, "IIQ", arena_bo, 0, 0)[2]
            seen = mmap.mmap(fds[0], arena_size, mmap.MAP_SHARED, offset=offset)
            Path(output_file).write_bytes(seen[output_at : output_at + output_size])
            os._exit(0)
        assert os.wait()[1] == os.wait()[1] == 0
    else:
        submit()
    result = arena[output_at : output_at + output_size]
    if mode:
        assert Path(output_file).read_bytes() == result
    else:
        Path(output_file).write_bytes(result)
    for handle in (command, constants_bo, arena_bo):
        if handle:
            call(fd, GEM_CLOSE, "II", handle, 0)
    del kept
    os.close(fd)


if __name__ == "__main__":
    main(*sys.argv[1:])
