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
DIGITS = EXAMPLES / "digits" / "digits.tflite"
CORPUS = ROOT / "tests" / "corpus" / "networks"


def run(name: str, *arguments: str | Path, status: int = 0) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert done.returncode == status, done
    return done.stderr if status else done.stdout


@pytest.mark.parametrize("name", ["highlevel.py", "raw_ioctls.py"])
def test_digit(name: str) -> None:
    expected = np.load(EXAMPLES / "digits" / "test.npz")["expected"][:1]
    assert str(expected) in run(name)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["highlevel.py", "raw_ioctls.py"])
def test_any_network(name: str) -> None:
    printed = run(name, shared_network("hello_world_int8"), "imx93")
    assert "output" in printed


@pytest.mark.parametrize("device", ["ethos-u55-32", "ethos-u65-512"])
def test_raw_ioctls_compile_for_the_device_that_answers(device: str) -> None:
    expected = np.load(EXAMPLES / "digits" / "test.npz")["expected"][:1]
    printed = run("raw_ioctls.py", DIGITS, device)
    assert printed.startswith(f"{device}: ")
    assert str(expected) in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("digits.py", "ethos-u99"), "there is no device 'ethos-u99'"),
        (("highlevel.py", DIGITS, "ethos-u99"), "there is no device 'ethos-u99'"),
        (("raw_ioctls.py", DIGITS, "ethos-u99"), "there is no device 'ethos-u99'"),
        (("raw_ioctls.py", DIGITS, "/dev/null"), "Inappropriate ioctl"),
        (("highlevel.py", "missing.tflite"), "missing.tflite"),
        (("raw_ioctls.py", "missing.tflite"), "missing.tflite"),
        (("raw_ioctls.py", CORPUS / "mixed_div_int8.tflite"), "is not wholly one NPU operator"),
    ],
)
def test_bad_input_is_one_sentence(arguments: tuple[str | Path, ...], words: str) -> None:
    said = run(*map(str, arguments), status=2)
    assert words in said
    assert said.count("\n") == 1, said
