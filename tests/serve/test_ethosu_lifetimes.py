# SPDX-License-Identifier: Apache-2.0
"""Descriptors of Arm's driver closed during inferences, and clients killed: nothing early, nothing left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve.conftest import CLIENTS, SOURCE, TIMEOUT, Compile, environment, left
from tests.serve.test_ethosu_linux import write
from tests.vectors import DIGITS, digits_vectors

ORDERS = [sys.executable, str(CLIENTS / "ethosu_orders.py"), "network.tflite", "ifm", "expected"]


def launch(directory: Path, fault: str, *command: str) -> None:
    """Run it, expect exit code 0 and that no object of the driver's is left."""
    expected = write(directory, (DIGITS / "digits.tflite").read_bytes(), digits_vectors(1))
    (directory / "expected").write_bytes(expected)
    counted = [sys.executable, "-m", "tests.serve.counted_subsystem", "report", fault, "--", *command]
    path = f"{SOURCE}:{SOURCE.parent}"
    done = subprocess.run(
        counted,
        capture_output=True,
        text=True,
        cwd=directory,
        env={**environment(), "PYTHONPATH": path},
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert left(directory / "report") == {"objects": 0}


def test_descriptors_closed_in_many_orders_during_a_run(tmp_path: Path) -> None:
    launch(tmp_path, "none", *ORDERS)


@pytest.mark.parametrize("fault", ["none", "hang", "firmware hang"])
def test_a_killed_client_leaves_nothing_and_the_next_one_works(
    compiled: Compile, tmp_path: Path, fault: str
) -> None:
    """Killed with four inferences under way, of which the first may never end by itself.

    CAPABILITIES time out after 2 s, a silent firmware is reset after 6 (facts, ethosu-linux.md §2.5) or, as
    device time does not wait for the driver's process, when its inference is overdue after 9: who asks in
    between is told ETIME, and has to ask again.
    """
    run = f"{compiled('arm_runner')} arm /dev/ethosu0 network.tflite ifm ofm"
    tries = " || ".join([run] * (6 if fault == "firmware hang" else 1))
    script = f'"$@" die; test $? = 137 && {{ {tries}; }} && cmp ofm expected'
    launch(tmp_path, fault, "/bin/sh", "-c", script, "sh", *ORDERS)
