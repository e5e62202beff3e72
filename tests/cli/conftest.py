# SPDX-License-Identifier: Apache-2.0
"""The command as people start it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits" / "digits.tflite"
IMAGES = DIGITS.parent / "test.npz"
START = "from npubox.cli.main import main; main()"


@dataclass(frozen=True)
class Answer:
    status: int
    out: str
    err: str


Npubox = Callable[..., Answer]


@pytest.fixture(scope="session")
def npubox() -> Npubox:
    def run(*arguments: str | Path, before: str = "") -> Answer:
        """`npubox ARGUMENTS`, with the Python statements `before` executed in its process first."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        command = [sys.executable, "-c", f"{before}\n{START}", *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, check=False, timeout=300
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    return run


def one_sentence(answer: Answer, *words: str) -> None:
    """Bad input: exit code 2, nothing on stdout, one line on stderr with these words in it."""
    assert answer.status == 2, answer
    assert answer.out == ""
    assert answer.err.startswith("npubox: "), answer.err
    assert answer.err.count("\n") == 1, answer.err
    for word in words:
        assert word in answer.err, answer.err
