# SPDX-License-Identifier: Apache-2.0
"""64 threads of a program in waits on sync objects: none lost, early or stuck, and idle ones cost no CPU."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import processes
from tests.serve.conftest import TIMEOUT, Compile, environment, left

SETTLING, IDLE = 2.0, 2.0  # seconds
MOST_CPU = 0.04  # of one CPU, for all waits together
ROOT = Path(__file__).parents[2]


def launch(report: Path, client: Path, *arguments: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "tests.serve.counted",
        str(report),
        "--preset=refaccel",
        "--",
        str(client),
        *arguments,
    ]


def run(report: Path, client: Path, *arguments: str) -> str:
    """The output of a program that ends well and leaves nothing."""
    done = subprocess.run(
        launch(report, client, *arguments),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=environment(),
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    check_nothing_left(report)
    return done.stdout


def check_nothing_left(report: Path) -> None:
    found = left(report)
    assert (found["files"], found["objects"], found["bytes"]) == (0, 0, 0)


@pytest.mark.parametrize("signals", [None, "eintr", "restart"])
@pytest.mark.parametrize("part", ["points", "deadlines"])
def test_among_signals(compiled: Compile, tmp_path: Path, part: str, signals: str | None) -> None:
    """Points that others signal, and time-outs; also while threads get signals, with SA_RESTART or not."""
    output = run(tmp_path / "report", compiled("syncobj_waits"), part, *([signals] if signals else []))
    found = re.fullmatch(r"interrupted: (\d+), signals: (\d)\nlost 0 early 0\n", output)
    assert found is not None, output
    assert found[2] == ("1" if signals else "0")
    assert (int(found[1]) > 0) == (signals == "eintr")


def test_killed_processes_leave_the_others_alone(compiled: Compile, tmp_path: Path) -> None:
    assert run(tmp_path / "report", compiled("syncobj_waits"), "kill") == "lost 0 early 0\n"


def test_a_signal_ends_a_long_wait(compiled: Compile, tmp_path: Path) -> None:
    output = run(tmp_path / "report", compiled("syncobj_waits"), "long")
    assert output == "prompt: 1\nlost 0 early 0\n"


def test_idle_waiting_costs_no_cpu(compiled: Compile, tmp_path: Path) -> None:
    """Neither the program, nor the supervisor, which holds the device too, nor what starts them."""
    report = tmp_path / "report"
    with subprocess.Popen(
        launch(report, compiled("syncobj_waits"), "idle"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=ROOT,
    ) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "idle\n"
        (supervisor,) = processes.children(started.pid)
        everybody = [started.pid, supervisor, *processes.children(supervisor)]
        assert len(everybody) == 3
        time.sleep(SETTLING)
        before, start = sum(map(cpu_time, everybody)), time.monotonic()
        time.sleep(IDLE)
        used = (sum(map(cpu_time, everybody)) - before) / (time.monotonic() - start)
        output, _ = started.communicate("\n", TIMEOUT)
    assert output == "interrupted: 0, signals: 0\nlost 0 early 0\n"
    assert used < MOST_CPU
    check_nothing_left(report)


def cpu_time(pid: int) -> float:
    """Seconds for which the threads of a process ran."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text("ascii").split()[0]) for task in tasks) / 1e9
