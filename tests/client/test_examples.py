# SPDX-License-Identifier: Apache-2.0
"""The examples run as printed, and both levels compute the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.networks import shared_network

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def run(name: str, *arguments: str | Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, check=True, timeout=300
    ).stdout


@pytest.mark.parametrize("name", ["highlevel.py", "raw_ioctls.py"])
def test_digit(name: str) -> None:
    expected = np.load(EXAMPLES / "digits" / "test.npz")["expected"][:1]
    assert str(expected) in run(name)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["highlevel.py", "raw_ioctls.py"])
def test_any_network(name: str) -> None:
    printed = run(name, shared_network("hello_world_int8"), "imx93")
    assert "output" in printed
