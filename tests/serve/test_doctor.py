# SPDX-License-Identifier: Apache-2.0
"""`npubox doctor` tells what this host can do, and in a launch that it cannot have another."""

from __future__ import annotations

import json
import subprocess
import sys

from npubox.serve.doctor import Finding, conclusion
from tests.serve.conftest import START, environment, run

DOCTOR = [sys.executable, "-c", START, "doctor"]


def test_it_agrees_with_what_a_launch_does() -> None:
    done = subprocess.run([*DOCTOR, "--json"], capture_output=True, text=True, env=environment(), check=False)
    report = json.loads(done.stdout)
    works = all(finding["problem"] is None for finding in report["findings"] if finding["needed"])
    assert done.returncode == (0 if works else 1)
    assert works == (run("true", check=False).returncode == 0)
    if works and "tier A: paths" in report["conclusion"]:
        assert run("stat", "-c", "%t:%T", "/dev/accel/accel0").stdout == "105:0\n"


def test_inside_a_launch_a_second_listener_is_what_fails() -> None:
    done = run(*DOCTOR, check=False)
    assert done.returncode == 1
    assert "NO   seccomp user notification" in done.stdout
    assert "Device or resource busy" in done.stdout


def test_conclusions() -> None:
    works, namespace, nodes = (
        Finding(name, None, needed) for name, needed in (("a", True), ("b", False), ("c", False))
    )
    assert "tier A: paths" in conclusion([works, namespace, nodes])
    assert "user namespace" in conclusion([works, namespace, Finding("c", "only root", False)])
    assert "tier B" in conclusion([works, Finding("b", "no", False), Finding("c", "no", False)])
    assert "cannot be served" in conclusion([Finding("a", "no"), namespace, nodes])
