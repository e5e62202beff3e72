# SPDX-License-Identifier: Apache-2.0
"""Close the descriptors of an inference while it runs: python ethosu_orders.py NETWORK IFM EXPECTED [die]

Each of the six descriptors is the first to be closed once, and the last; what the subsystem computed has to
appear in the mapping all the same. With `die` the process is killed with inferences under way instead.
"""

import fcntl
import mmap
import os
import signal
import struct
import sys
import time
from pathlib import Path

BUFFER_CREATE, BUFFER_SET, NETWORK_CREATE, INFERENCE_CREATE = 0x80040110, 0x80080111, 0x80080120, 0x80AC0130
NAMES = ["device", "model", "input", "output", "network", "inference"]
PATIENCE = 60.0


def ioctl(fd: int, request: int, data: bytes) -> int:
    """The result; what comes back in the argument is of no interest here."""
    result: int = fcntl.ioctl(fd, request, bytearray(data), True)
    return result


def buffer(device: int, content: bytes, capacity: int = 0) -> tuple[int, mmap.mmap]:
    """The descriptor, and a mapping that holds no duplicate of it."""
    fd = ioctl(device, BUFFER_CREATE, struct.pack("I", capacity or len(content)))
    memory = mmap.mmap(fd, capacity or len(content))
    memory[: len(content)] = content
    ioctl(fd, BUFFER_SET, struct.pack("II", 0, len(content)))
    return fd, memory


def start(network: bytes, ifm: bytes, size: int) -> tuple[dict[str, int], list[mmap.mmap]]:
    device = os.open("/dev/ethosu0", os.O_RDWR | os.O_NONBLOCK)
    made = {"model": buffer(device, network), "input": buffer(device, ifm)}
    made["output"] = buffer(device, b"", size)
    fds = {"device": device} | {name: fd for name, (fd, _) in made.items()}
    fds["network"] = ioctl(device, NETWORK_CREATE, struct.pack("II", 1, fds["model"]))
    create = struct.pack("I16II16I9I", 1, fds["input"], *[0] * 15, 1, fds["output"], *[0] * 15, *[0] * 9)
    fds["inference"] = ioctl(fds["network"], INFERENCE_CREATE, create)
    return fds, [memory for _, memory in made.values()]


def main(network: str, ifm: str, expected: str, *mode: str) -> None:
    files = [Path(name).read_bytes() for name in (network, ifm, expected)]
    if mode:
        kept = [start(files[0], files[1], len(files[2])) for _ in range(4)]
        assert kept
        os.kill(os.getpid(), signal.SIGKILL)
    for shift in range(len(NAMES)):
        for order in (NAMES[shift:] + NAMES[:shift], NAMES[shift::-1] + NAMES[:shift:-1]):
            fds, mappings = start(files[0], files[1], len(files[2]))
            for memory in mappings[:2]:
                memory.close()
            for name in order:
                os.close(fds[name])
            deadline = time.monotonic() + PATIENCE
            while mappings[2][:] != files[2]:
                assert time.monotonic() < deadline, f"{order}: the result does not come"
                time.sleep(0.001)
            mappings[2].close()


if __name__ == "__main__":
    main(*sys.argv[1:])
