# SPDX-License-Identifier: Apache-2.0
"""What a served ioctl costs: python -m benchmarks.serve

Times are those that a C program sees of a 32-byte in/out ioctl, medians; ratios are to the host's own
failing ioctl and to a bare supervisor. Bare means: it receives, finds out whose descriptor it is, checks
that the caller lives, copies 32 bytes in and out and answers: what no supervisor in Python can do
without, and nothing else. Rounds are interleaved.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from npubox.core import libc
from npubox.serve import bpf, linux, syscalls
from npubox.serve.caller import Tasks
from npubox.serve.listener import Listener

CLIENTS = Path(__file__).parents[1] / "tests" / "clients"
NODE = "/dev/accel/accel0"
START = [sys.executable, "-c", "from npubox.cli.entry import main; main()", "exec", "--"]
GET_CAP_32 = 0xC020640C


def compile_client(directory: Path) -> Path:
    target = directory / "latency"
    subprocess.run(["cc", "-O1", "-o", target, CLIENTS / "latency.c"], check=True)
    return target


def times(command: list[str]) -> list[int]:
    """The times that a run of the client printed, ns."""
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [int(line) for line in done.stdout.split()]


def bare(client: list[str]) -> list[int]:
    """The client under a bare echo supervisor; GET_CAP's answer is written by hand."""
    reader, writer = os.pipe()
    sender, receiver = __import__("socket").socketpair()
    pid = os.fork()
    if pid == 0:
        program = bpf.assemble(bpf.Profile(ioctl_types=(ord("d"),)), syscalls.native())
        os.dup2(writer, 1)
        listener = linux.install_filter(program)
        __import__("socket").send_fds(sender, [b"x"], [listener])
        os.close(listener)
        os.execv(client[0], client)
    os.close(writer)
    _, fds, _, _ = __import__("socket").recv_fds(receiver, 1, 1)
    _echo(Listener(fds[0]))
    os.waitpid(pid, 0)
    with os.fdopen(reader) as output:
        return [int(line) for line in output]


def _echo(listener: Listener) -> None:
    ioctl = syscalls.native().numbers["ioctl"]
    epoll = select.epoll()
    epoll.register(listener.fd, select.EPOLLIN)
    tasks = Tasks()
    window = libc.Window()
    while True:
        for _, events in epoll.poll():
            if not events & select.EPOLLIN:
                listener.close()
                return
            call = listener.receive()
            if call is None:
                continue
            if call.number != ioctl:
                listener.proceed(call.id)
                continue
            tasks.link(call.tid, call.args[0])
            data = window.read(call.tid, call.args[2], 32)
            if data is None or not listener.alive(call.id):
                continue
            window.write(call.tid, call.args[2], data[:8] + (3).to_bytes(8, "little") + data[16:])
            listener.answer(call.id, 0)


def in_process(count: int) -> list[int]:
    from npubox.machines import open_preset

    argument = (ctypes.c_uint64 * 4)(5, 0, 7, 8)
    address = ctypes.addressof(argument)
    found = []
    with open_preset("imx93") as machine, machine.open_node() as node:
        for _ in range(count):
            start = time.perf_counter_ns()
            node.ioctl(GET_CAP_32, address)
            found.append(time.perf_counter_ns() - start)
    return found


def measure(count: int, rounds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory:
        client = str(compile_client(Path(directory)))
        ways: dict[str, Callable[[], list[int]]] = {
            "native failing": lambda: times([client, "/dev/null", str(count), "0"]),
            "bare supervisor": lambda: bare([client, "/dev/zero", str(count), "0"]),
            "served": lambda: times([*START, client, NODE, str(count), "0"]),
            "in process": lambda: in_process(count),
        }
        medians: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                medians[name].append(statistics.median(way()) / 1000)
    return {name: statistics.median(values) for name, values in medians.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.count, options.rounds)
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        native, echo = value / found["native failing"], value / found["bare supervisor"]
        print(f"{name:<16} {value:8.2f} µs {native:8.1f} x native {echo:6.2f} x bare")


if __name__ == "__main__":
    main()
