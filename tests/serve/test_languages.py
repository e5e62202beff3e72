# SPDX-License-Identifier: Apache-2.0
"""The digits from other languages, with nothing but system calls, and through our own client on the node."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.serve.conftest import CLIENTS, TIMEOUT, environment, run
from tests.serve.jobs import DIGITS, digits

TIERS = pytest.mark.parametrize("tier", [(), ("--seccomp-only",)], ids=["namespace", "seccomp"])
NODE = "/dev/accel/accel0"
STATIC = ("-C", "target-feature=+crt-static")


@pytest.mark.parametrize("options", [(), STATIC], ids=["dynamic", "static"])
@TIERS
def test_rust(tmp_path: Path, options: tuple[str, ...], tier: tuple[str, ...]) -> None:
    compiler = shutil.which("rustc")
    if compiler is None:
        pytest.skip("needs rustc, of the package rustc")
    program = tmp_path / "digits"
    command = [compiler, "--edition", "2021", "-O", "-o", str(program), *options, str(CLIENTS / "digits.rs")]
    subprocess.run(command, check=True)
    job = digits()
    (tmp_path / "job").write_bytes(job.content)
    run(program, "job", "out", "5", options=tier, cwd=tmp_path)
    assert (tmp_path / "out").read_bytes() == job.expected * 5


@TIERS
def test_pythons_fcntl(tmp_path: Path, tier: tuple[str, ...]) -> None:
    for index in range(3):
        job = digits(index)
        (tmp_path / "job").write_bytes(job.content)
        run(sys.executable, "-I", CLIENTS / "through_fcntl.py", "job", "out", options=tier, cwd=tmp_path)
        assert (tmp_path / "out").read_bytes() == job.expected


@TIERS
def test_our_own_client_on_the_node(tmp_path: Path, tier: tuple[str, ...]) -> None:
    command = [sys.executable, str(CLIENTS / "all_digits.py")]
    files = [str(DIGITS / "digits.tflite"), str(DIGITS / "test.npz")]
    run(*command, NODE, *files, tmp_path / "served.npz", options=tier)
    here = [*command, "imx93", *files, str(tmp_path / "here.npz")]
    subprocess.run(here, check=True, timeout=TIMEOUT, env=environment())
    served, in_process = _loaded(tmp_path / "served.npz"), _loaded(tmp_path / "here.npz")
    assert not served["virtual"]
    assert in_process["virtual"]
    assert np.array_equal(served["about"], in_process["about"])
    expected = _loaded(DIGITS / "test.npz")["expected"]
    assert len(expected) == 360
    for found in (served["scores"], in_process["scores"]):
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)


def _loaded(path: Path) -> dict[str, Any]:
    with np.load(path) as stored:
        return dict(stored)
