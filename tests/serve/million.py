# SPDX-License-Identifier: Apache-2.0
"""A million random ioctls of programs under a launch: python -m tests.serve.million [--machine NAME].

Made from the declarations in npubox.uapi, on the node and on whatever descriptors the calls give, by
processes that share descriptors, are interrupted and are killed (tests/clients/fuzz.c). Prints how many calls
succeeded, and descriptors and resident memory of every process before and after. Exit code 1 where
something grew or is left, or where a call never succeeded that can.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npubox.uapi import dma_buf, drm, drm_syncobj, ethosu_accel, refaccel, sw_sync, sync_file
from npubox.uapi.drm_numbers import MODESET_NUMBERS, NUMBERS, UNHANDLED_NUMBERS
from npubox.uapi.ioctl import Ioctl
from tests import processes
from tests.networks import compiled_by_vela
from tests.serve.conftest import CLIENTS, environment, left
from tests.serve.jobs import DIGITS

NODE_PATH = "/dev/accel/accel0"
NODE, DMA_BUF, SYNC_FILE, SW_SYNC, SYNCOBJ = range(5)
FILES = {
    DMA_BUF: dma_buf.IOCTLS,
    SYNC_FILE: sync_file.IOCTLS,
    SW_SYNC: sw_sync.IOCTLS,
    SYNCOBJ: sync_file.IOCTLS,
}
NODES = {
    "refaccel": (*drm.IOCTLS, *drm_syncobj.IOCTLS, *refaccel.IOCTLS),
    "imx93": (*drm.IOCTLS, *ethosu_accel.IOCTLS),
}
NO_SW_SYNC = ("imx93",)
NEVER = {
    *(drm.GET_MAGIC.name, drm.SET_CLIENT_CAP.name, drm.SET_MASTER.name, drm.DROP_MASTER.name),
    *(f"{declared.name}(syncobj)" for declared in FILES[SYNCOBJ]),
}
"""What cannot succeed: an accel node has no master nor client capabilities, a sync object's file no ioctl."""
BY_FLAGS = -2
GIVES = {
    drm.PRIME_HANDLE_TO_FD: (DMA_BUF, "fd"),
    drm_syncobj.SYNCOBJ_HANDLE_TO_FD: (BY_FLAGS, "fd"),
    dma_buf.EXPORT_SYNC_FILE: (SYNC_FILE, "fd"),
    sync_file.MERGE: (SYNC_FILE, "fence"),
    sw_sync.CREATE_FENCE: (SYNC_FILE, "fence"),
}
"""What file a call gives, and the member that becomes its descriptor."""
WEIGHTS = {
    **dict.fromkeys((drm_syncobj.SYNCOBJ_CREATE, refaccel.CREATE_BO, ethosu_accel.BO_CREATE), 4),
    **dict.fromkeys((drm_syncobj.SYNCOBJ_DESTROY, drm.GEM_CLOSE, drm.SET_MASTER, drm.DROP_MASTER), 1),
}
"""How often a call is made, where not 2: more is made than destroyed, so that others find it."""
MMAP_OFFSETS = (refaccel.CREATE_BO, ethosu_accel.BO_MMAP_OFFSET)
KINDS = {
    **dict.fromkeys(("name", "date", "desc", "unique", "sync_fence_info", "pointer"), "p"),
    **dict.fromkeys(("handle", "src_handle", "dst_handle"), "h"),
    **dict.fromkeys(("fd", "fd2", "fence_fd"), "f"),
    **dict.fromkeys(("count_handles", "num_fences", "job_count"), "c"),
    **dict.fromkeys(("timeout_nsec", "timeout_ns"), "t"),
    "handles": "H",
    "points": "P",
    "size": "z",
    "flags": "g",
    "pad": "d",
    "jobs": "J",
    "data": "D",
}
"""How fuzz.c chooses a member's value, by its name; the others are small numbers."""
MOST_GROWTH = 16 << 20  # bytes of resident memory between the first tenth and the end
SETTLED = 0.5  # seconds in which nothing changes any more


def table(machine: str) -> str:
    """What fuzz.c reads: the node, a line for each ioctl, numbers without an argument, a command stream."""
    lines = [NODE_PATH]
    lines += [_row(NODE, declared) for declared in NODES[machine]]
    absent = (SW_SYNC, SYNCOBJ) if machine in NO_SW_SYNC else ()
    lines += [_row(kind, declared) for kind, all_ in FILES.items() if kind not in absent for declared in all_]
    others = [number for number, _ in NUMBERS.values()]
    others += [*MODESET_NUMBERS.values(), *UNHANDLED_NUMBERS.values()]
    lines += [f"bare {number:x}" for number in others]
    network = compiled_by_vela((DIGITS / "digits.tflite").read_bytes(), "ethos-u65-256")
    (stream,) = (operator.npu.stream.words for operator in network.operators if operator.npu is not None)
    lines.append(f"stream {len(stream)} {bytes(stream).hex()}")
    return "\n".join(lines) + "\n"


def _row(kind: int, declared: Ioctl[Any]) -> str:
    gives, member = GIVES.get(declared, (-1, None))
    struct = declared.struct
    fields = [
        (getattr(struct, name).offset, ctypes.sizeof(type_), _kind(declared, name))
        for name, type_, *_ in struct._fields_
        if issubclass(type_, ctypes._SimpleCData)
    ]
    name = declared.name + ("(syncobj)" if kind == SYNCOBJ else "")
    fd_at = getattr(struct, member).offset if member else -1
    mmap_at = struct.offset.offset if declared in MMAP_OFFSETS else -1
    words = (
        "row",
        name,
        kind,
        WEIGHTS.get(declared, 2),
        f"{declared.number:x}",
        gives,
        fd_at,
        mmap_at,
        len(fields),
    )
    return " ".join(map(str, (*words, *(part for field in fields for part in field))))


def _kind(declared: Ioctl[Any], name: str) -> str:
    if declared is ethosu_accel.CMDSTREAM_BO_CREATE and name == "size":
        return "S"
    if declared is drm_syncobj.SYNCOBJ_EVENTFD and name == "fd":
        return "e"
    if declared is drm.GEM_OPEN and name == "name":
        return "h"
    return KINDS.get(name, "n")


@dataclass(frozen=True)
class Count:
    descriptors: int
    resident: int  # bytes


def count(pid: int) -> Count:
    """Without the directories in /proc that a supervisor keeps of its last callers."""
    descriptors = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed at this moment
            descriptors += not os.readlink(link).startswith("/proc/")
    pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return Count(descriptors, pages * os.sysconf("SC_PAGE_SIZE"))


class Launch:
    """The processes of a launch, by what they are."""

    def __init__(self, front: int, client: Path) -> None:
        (supervisor,) = processes.children(front)
        self._pids = {"supervisor": supervisor}
        for pid in processes.children(supervisor):
            is_client = str(client).encode() in processes.command(pid)
            self._pids["client" if is_client else "device"] = pid

    def counts(self) -> dict[str, Count]:
        """When nothing is being released any more."""
        before = None
        while before != (now := {name: count(pid) for name, pid in self._pids.items()}):
            before = now
            time.sleep(SETTLED)
        return now


@dataclass(frozen=True)
class Outcome:
    """`rows`: a line of fuzz.c for each ioctl; `phases` what was there after each part; `left` at the end."""

    rows: list[str]
    calls: list[int]
    seconds: list[float]
    phases: list[dict[str, Count]]
    client_leaked: int
    left: dict[str, int]

    @property
    def unreached(self) -> list[str]:
        """Calls that never succeeded, though they may."""
        rows = (row.split() for row in self.rows)
        return [name for name, _, succeeded, *_ in rows if succeeded == "0" and name not in NEVER]

    @property
    def grown(self) -> list[str]:
        """What is more after the last part than after the first, in words."""
        first, last = self.phases[0], self.phases[-1]
        found = [f"{self.client_leaked} descriptors in clients"] if self.client_leaked else []
        for name, was in first.items():
            descriptors = last[name].descriptors - was.descriptors
            memory = last[name].resident - was.resident
            found += [f"{name}: {descriptors} descriptors"] if descriptors > 0 else []
            found += [f"{name}: {memory >> 10} KiB"] if memory > MOST_GROWTH else []
        found += [f"{self.left[what]} {what}" for what in ("files", "objects", "bytes") if self.left[what]]
        return found


def run(client: Path, machine: str, seed: int, *parts: int) -> Outcome:
    """So many calls in each part by `client`, compiled fuzz.c. RuntimeError where it did not make them."""
    with tempfile.TemporaryDirectory() as directory:
        report, declared = Path(directory) / "report", Path(directory) / "table"
        declared.write_text(table(machine), "ascii")
        launch = [sys.executable, "-m", "tests.serve.counted", str(report), f"--preset={machine}", "--"]
        program = [str(client), str(declared), str(seed), *map(str, parts)]
        calls, seconds, phases, leaked = [0], [], [], 0
        with subprocess.Popen(
            [*launch, *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
            cwd=Path(__file__).parents[2],
        ) as started:
            assert started.stdin is not None
            assert started.stdout is not None
            for _ in parts:
                begin = time.monotonic()
                line = started.stdout.readline().split()
                if line[:1] != ["closed"]:
                    raise RuntimeError(f"the client did not end its calls: {' '.join(line)}")
                seconds.append(time.monotonic() - begin)
                calls.append(int(line[1]))
                leaked = int(line[2])
                phases.append(Launch(started.pid, client).counts())
                started.stdin.write("\n")
                started.stdin.flush()
            rows = started.stdout.read().splitlines()
        if started.returncode:
            raise RuntimeError(f"the launch ended with {started.returncode}")
        each = [after - before for before, after in itertools.pairwise(calls)]
        return Outcome(rows, each, seconds, phases, leaked, left(report))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.serve.million", description=__doc__)
    parser.add_argument("--machine", choices=NODES, default="refaccel")
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    tenth = options.calls // 10
    with tempfile.TemporaryDirectory() as directory:
        client = Path(directory) / "fuzz"
        command = ["cc", "-O1", "-Wall", "-pthread", "-o", str(client), str(CLIENTS / "fuzz.c")]
        subprocess.run(command, check=True)
        outcome = run(client, options.machine, options.seed, tenth, options.calls - tenth)
    print(f"{'ioctl':42}{'calls':>9}{'succeed':>9}{'slowest':>10}  errors")
    for row in outcome.rows:
        name, calls, good, slowest, *errors = row.split()
        share = f"{int(good) / int(calls):.1%}" if int(calls) else "-"
        print(f"{name:42}{calls:>9}{share:>9}{int(slowest) / 1000:>7.1f} ms  {' '.join(errors)}")
    rates = ", ".join(
        f"{calls} calls in {seconds:.0f} s ({calls / seconds:.0f} a second)"
        for calls, seconds in zip(outcome.calls, outcome.seconds, strict=True)
    )
    print(f"\n{options.machine}: {rates}")
    for name in outcome.phases[0]:
        counts = [
            f"{phase[name].descriptors} descriptors, {phase[name].resident / 2**20:.1f} MiB"
            for phase in outcome.phases
        ]
        print(f"{name:12}{' -> '.join(counts)}")
    print("when the programs were gone:", json.dumps(outcome.left))
    print("\n".join(f"grown: {what}" for what in outcome.grown) or "nothing grew")
    if outcome.unreached:
        print("never succeeded:", ", ".join(outcome.unreached))
    return 1 if outcome.grown or outcome.unreached else 0


if __name__ == "__main__":
    sys.exit(main())
