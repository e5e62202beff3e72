# SPDX-License-Identifier: Apache-2.0
"""What a program sees whose node dies under it: python -m tests.clients.bereft JOB wait | loop

It prints "ready" when its node works, waits for a line, prints "waiting" or "looping" and does so until a
call fails; then how that failed, how two more calls fail, and whether its mapping still holds.
"""

import errno
import os
import sys
from collections.abc import Callable

from tests.clients.through_fcntl import BOTH, NODE, buffer, call, close, read_job, submit, wait


def say(name: str, action: "Callable[[], object]") -> None:
    try:
        action()
        print(f"{name}: 0", flush=True)
    except OSError as error:
        print(f"{name}: {errno.errorcode[error.errno or 0]}", flush=True)


def loop(node: int) -> None:
    while True:
        handle, memory = buffer(node, 4096)
        memory.close()
        close(node, handle)


def main(path: str, mode: str) -> None:
    job = read_job(path)
    node = os.open(NODE, os.O_RDWR)
    handle, arena = submit(node, job)
    wait(node, handle)
    print("ready", flush=True)
    sys.stdin.readline()
    if mode == "wait":
        handle, arena = submit(node, job)
        arena[:4] = b"mine"
        print("waiting", flush=True)
        say("BO_WAIT", lambda: wait(node, handle))
    else:
        arena[:4] = b"mine"
        print("looping", flush=True)
        say("loop", lambda: loop(node))
    say("GET_CAP", lambda: call(node, BOTH, 0x0C, "=QQ", 5, 0))
    say("open", lambda: os.close(os.open(NODE, os.O_RDWR)))
    print(f"mapping: {arena[:4].decode()}", flush=True)
    os.close(node)


if __name__ == "__main__":
    main(*sys.argv[1:])
