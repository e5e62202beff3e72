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
import random
import select
import socket
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
from npubox.serve.listener import Call, Listener

CHECKOUT = Path(__file__).parents[1]
CLIENTS = CHECKOUT / "tests" / "clients"
NODE = "/dev/accel/accel0"
START = [sys.executable, "-c", "from npubox.cli.entry import main; main()", "exec", "--"]
GET_CAP_32 = 0xC020640C
SHARED = Path(os.environ.get("NPUBOX_SHARED") or Path(__file__).parents[2] / "shared")
MODEL = SHARED / "models" / "coral_tf2_mobilenet_v2_1.0_224_ptq.tflite"


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
    with tempfile.TemporaryFile("w+") as output:  # not a pipe: nobody reads while the supervisor serves
        pid, listener = _filtered(client, bpf.Profile(ioctl_types=(ord("d"),)), output.fileno())
        _serve(listener, _Echo(listener).answer)
        os.waitpid(pid, 0)
        output.seek(0)
        return [int(line) for line in output]


def _filtered(command: list[str], profile: bpf.Profile, output: int) -> tuple[int, Listener]:
    """A program under a launch's filter and nothing else of a launch: its process and its listener."""
    program = bpf.assemble(profile, syscalls.native())
    sender, receiver = socket.socketpair()
    with sender, receiver:
        pid = os.fork()
        if pid == 0:
            os.dup2(output, 1)
            listener = linux.install_filter(program)
            socket.send_fds(sender, [b"x"], [listener])
            os.close(listener)
            os.execvp(command[0], command)
        _, fds, _, _ = socket.recv_fds(receiver, 1, 1)
    return pid, Listener(fds[0])


def _serve(listener: Listener, handle: Callable[[Call], None]) -> None:
    poll = select.poll()
    poll.register(listener.fd, select.POLLIN)
    while True:
        for _, events in poll.poll():
            if not events & select.POLLIN:
                listener.close()
                return
            call = listener.receive()
            if call is not None:
                handle(call)


class _Echo:
    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._ioctl = syscalls.native().numbers["ioctl"]
        self._tasks = Tasks()
        self._window = libc.Window()

    def answer(self, call: Call) -> None:
        if call.number != self._ioctl:
            self._listener.proceed(call.id)
            return
        self._tasks.link(call.tid, call.args[0])
        data = self._window.read(call.tid, call.args[2], 32)
        if data is None or not self._listener.alive(call.id):
            return
        self._window.write(call.tid, call.args[2], data[:8] + (3).to_bytes(8, "little") + data[16:])
        self._listener.answer(call.id, 0)


def notified(command: list[str]) -> int:
    """How many calls of a program a launch's filter stops, none of which is about a node."""
    with open(os.devnull, "w") as nowhere:
        pid, listener = _filtered(command, bpf.Profile(ioctl_types=(ord("d"),)), nowhere.fileno())
    count = 0

    def proceed(call: Call) -> None:
        nonlocal count
        count += 1
        listener.proceed(call.id)

    _serve(listener, proceed)
    os.waitpid(pid, 0)
    return count


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


def calls(client: str, count: int, rounds: int) -> dict[str, float]:
    """Medians in µs."""
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


def throughput(client: str, count: int) -> dict[str, float]:
    """Calls a second in all, from so many processes at once."""
    found = {}
    for processes in (1, 2, 4):
        (rate,) = times([*START, client, NODE, str(count), "0", str(processes)])
        found[f"{processes} at once"] = float(rate)
    return found


def beside_a_busy_npu(client: str, model: Path, directory: Path) -> dict[str, float]:
    """Medians in µs of a client that pauses 2 ms between calls: NPU idle, and always running `model`."""
    busy = Path(__file__).parent / "busy.py"
    quiet = times([*START, client, NODE, "1000", "2000"])
    script = (
        f"{sys.executable} {busy} {model} {directory}/ready & "
        f"while [ ! -e {directory}/ready ]; do sleep 0.1; done; {client} {NODE} 1000 2000; kill $!"
    )
    loaded = times([*START, "sh", "-c", script])
    return {"idle NPU": statistics.median(quiet) / 1000, "busy NPU": statistics.median(loaded) / 1000}


def nodeless_work(directory: Path) -> dict[str, str]:
    """Commands that never touch a node. Nothing that builds is worse off than the tiny program: its compiler
    does little but open files."""
    source = directory / "work.c"
    source.write_text('#include <stdio.h>\n#include <stdlib.h>\nint main(void) { puts("x"); return 0; }\n')
    objects = " && ".join(
        f"cc -O2 -Wall -c -o {directory}/{name}.o {CLIENTS}/{name}.c"
        for name in ("latency", "rules", "neuron")
    )
    tests = f"{sys.executable} -m pytest -q -p no:cacheprovider tests/uapi"
    return {
        "tiny compile": f"cc -O1 -o {directory}/tiny {source}",
        "build": f"{objects} && cc -pthread -o {directory}/built {directory}/latency.o",
        "python": f"{sys.executable} -c 'import json, re, typing, subprocess'",
        "test run": f"cd {CHECKOUT} && {tests} >{directory}/log",
    }


class Shell:
    """A shell that stays, in a launch or not, so that turns of work can alternate within a moment."""

    def __init__(self, command: list[str]) -> None:
        pipe = subprocess.PIPE
        self._shell = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1)
        self.spend("true")

    def spend(self, work: str) -> float:
        """Milliseconds that the work took."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        start = time.perf_counter()
        self._shell.stdin.write(f"({work}) && echo done || echo failed\n")
        self._shell.stdin.flush()
        answer = self._shell.stdout.readline()
        if answer != "done\n":
            raise RuntimeError(f"{work}: {answer or 'the shell ended'}")
        return (time.perf_counter() - start) * 1e3

    def close(self) -> None:
        self._shell.communicate()


def tax(directory: Path, rounds: int) -> dict[str, float]:
    """Milliseconds of work that never touches a node, in a launch and outside, and the ratio of the medians.
    Turns alternate in random order: a busy host changes by a tenth from one second to the next."""
    shells = {"outside": Shell(["sh"]), "launched": Shell([*START, "sh"])}
    found = {}
    for name, work in nodeless_work(directory).items():
        spent: dict[str, list[float]] = {where: [] for where in shells}
        for turn in range(rounds + 1):
            for where in random.sample(list(shells), len(shells)):
                milliseconds = shells[where].spend(work)
                if turn:
                    spent[where].append(milliseconds)
        for where, values in spent.items():
            found[f"{name} {where}"] = statistics.median(values)
        found[f"{name} ratio"] = found[f"{name} launched"] / found[f"{name} outside"]
    for shell in shells.values():
        shell.close()
    return found


def launch(rounds: int) -> dict[str, float]:
    """Milliseconds from the first fork to the last wait of `npubox exec -- true`."""
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        subprocess.run([*START, "true"], check=True)
        found.append((time.perf_counter() - start) * 1e3)
    return {"median": statistics.median(found), "best": min(found)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=4000, help="calls a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", type=Path, default=MODEL, help="what the busy NPU runs")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        client = str(compile_client(directory))
        found = {
            "call, µs": calls(client, options.count, options.rounds),
            "calls a second": throughput(client, options.count),
            "launch, ms": launch(2 * options.rounds),
            "work without nodes, ms": tax(directory, 12 * options.rounds),
            "its notified calls": {
                name: float(notified(["sh", "-c", command]))
                for name, command in nodeless_work(directory).items()
            },
        }
        if options.model.is_file():
            found["paused client, µs"] = beside_a_busy_npu(client, options.model, directory)
    if options.json:
        print(json.dumps(found))
        return
    for title, values in found.items():
        print(title)
        for row, value in values.items():
            print(f"  {row:<22} {value:12.2f}")
    call = found["call, µs"]
    print(f"served is {call['served'] / call['bare supervisor']:.2f} of a bare supervisor, ", end="")
    print(f"{call['served'] / call['native failing']:.0f} of a failing native call")


if __name__ == "__main__":
    main()
