# SPDX-License-Identifier: Apache-2.0
"""Callers that mean harm, or die: the kernel's errno, a supervisor that lives, and nothing left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve import million
from tests.serve.conftest import TIMEOUT, Compile, environment, left
from tests.serve.jobs import digits

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MOST_MEMORY = 150  # MiB that the supervisor may grow to
KILLS = 300


def counted(report: Path, *command: str | Path) -> str:
    """The output of a program under a launch that must be left without anything."""
    launch = [sys.executable, "-m", "tests.serve.counted", str(report), "--", *map(str, command)]
    done = subprocess.run(
        launch, capture_output=True, text=True, timeout=TIMEOUT, env=environment(), cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = left(report)
    assert found.pop("peak_mib") < MOST_MEMORY
    assert found == {"files": 0, "objects": 0, "bytes": 0}
    return done.stdout


@pytest.mark.parametrize(
    ("mode", "seen"),
    [
        ("changing", {"EINVAL", "EFAULT", "ENOMEM", "0"}),
        ("vanishing", {"0", "EFAULT"}),
        ("reused", {"0", "EBADF", "ENOTTY"}),
        ("limits", {"0", "ENOMEM", "EFAULT", "EINVAL"}),
        ("huge", {"ENOMEM"}),
        ("bomb", {"0"}),
        ("many files", {"0", "EMFILE"}),
        ("many mappings", {"0"}),
    ],
)
def test_survives(compiled: Compile, tmp_path: Path, mode: str, seen: set[str]) -> None:
    output = counted(tmp_path / "report", compiled("hostile"), mode)
    name, _, found = output.partition(":")
    assert name == mode
    assert found.split()
    assert set(found.split()) <= seen


@pytest.mark.parametrize("seed", range(4))
def test_random_ioctls_answer_as_in_process(tmp_path: Path, seed: int) -> None:
    fuzz = [sys.executable, str(HERE / "fuzz.py")]
    arguments = [str(seed), "2000"]
    here = subprocess.run(
        [*fuzz, "imx93", *arguments], capture_output=True, text=True, env=environment(), check=True
    ).stdout
    served = counted(tmp_path / "report", *fuzz, "/dev/accel/accel0", *arguments)
    assert here.count("\n") == 2000
    assert served == here


@pytest.mark.parametrize("machine", ["refaccel", "imx93"])
def test_random_ioctls_of_many_programs_leave_nothing(compiled: Compile, machine: str) -> None:
    """A million of them: make test-fuzz-served."""
    outcome = million.run(compiled("fuzz"), machine, 5, 6000, 24000)
    assert outcome.grown == []
    assert outcome.unreached == []


def test_clients_killed_at_random_moments_leave_nothing(compiled: Compile, tmp_path: Path) -> None:
    (tmp_path / "job").write_bytes(digits().content)
    client = compiled("mesa_like")
    storm = [sys.executable, str(HERE / "storm.py"), str(KILLS), "7"]
    output = counted(tmp_path / "report", *storm, client, tmp_path / "job", "/dev/null", "6")
    assert int(output) > KILLS // 2
