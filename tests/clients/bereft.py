# SPDX-License-Identifier: Apache-2.0
"""What a program sees whose node dies under it: python -m tests.clients.bereft JOB wait | loop

It prints "ready" when its node works, waits for a line, prints "waiting" or "looping" and does so until a
call ends or fails; then how, how two more calls end, and whether its mapping still holds.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import sys
from collections.abc import Callable

from tests.clients.fcntl_only import (
    BO_WAIT,
    CMDSTREAM_BO_CREATE,
    FOREVER,
    GEM_CLOSE,
    SUBMIT,
    call,
    create,
    pinned,
)

NODE = "/dev/accel/accel0"
GET_CAP = 0xC010640C


def submit(fd: int, content: bytes) -> tuple[int, mmap.mmap]:
    """Hand the prepared job to the NPU; handle and mapping of its arena."""
    stream_size, constant_size, arena_size, sram, input_size, _, input_at, _ = struct.unpack_from(
        "<8I", content
    )
    kept, where = pinned(content[32 : 32 + stream_size])
    command = call(fd, CMDSTREAM_BO_CREATE, "IIQII", stream_size, 0, where, 0, 0)[3]
    constants_bo, constants = create(fd, constant_size)
    constants[:] = content[32 + stream_size : 32 + stream_size + constant_size]
    arena_bo, arena = create(fd, arena_size)
    arena[input_at : input_at + input_size] = content[-input_size:]
    kept, where = pinned(struct.pack("10I", command, sram, constants_bo, arena_bo, *(0,) * 6))
    call(fd, SUBMIT, "QII", where, 1, 0)
    del kept
    return arena_bo, arena


def wait(fd: int, handle: int) -> None:
    call(fd, BO_WAIT, "IIq", handle, 0, FOREVER)


def loop(fd: int) -> None:
    while True:
        handle, memory = create(fd, 4096)
        memory.close()
        call(fd, GEM_CLOSE, "II", handle, 0)


def say(name: str, action: Callable[[], object]) -> None:
    try:
        action()
        print(f"{name}: 0", flush=True)
    except OSError as error:
        print(f"{name}: {errno.errorcode[error.errno or 0]}", flush=True)


def main(path: str, mode: str) -> None:
    with open(path, "rb") as file:
        content = file.read()
    fd = os.open(NODE, os.O_RDWR)
    handle, arena = submit(fd, content)
    wait(fd, handle)
    print("ready", flush=True)
    sys.stdin.readline()
    if mode == "wait":
        handle, arena = submit(fd, content)
        arena[:4] = b"mine"
        print("waiting", flush=True)
        say("BO_WAIT", lambda: wait(fd, handle))
    else:
        arena[:4] = b"mine"
        print("looping", flush=True)
        say("loop", lambda: loop(fd))
    say("GET_CAP", lambda: call(fd, GET_CAP, "QQ", 5, 0))
    say("open", lambda: os.close(os.open(NODE, os.O_RDWR)))
    print(f"mapping: {arena[:4].decode()}", flush=True)
    os.close(fd)


if __name__ == "__main__":
    main(*sys.argv[1:])
