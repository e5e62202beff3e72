# SPDX-License-Identifier: Apache-2.0
"""Programs that run under `npubox exec`, compiled from tests/clients."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

CLIENTS = Path(__file__).parents[1] / "clients"
SOURCE = Path(__file__).parents[2] / "src"
START = "from npubox.cli.entry import main; main()"
TIMEOUT = 120

Compile = Callable[..., Path]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Compile a client with the host's C or C++ compiler; skip where there is none."""
    directory = tmp_path_factory.mktemp("clients")

    def compile_(name: str, *options: str) -> Path:
        source = next(CLIENTS.glob(f"{name}.c*"))
        compiler = shutil.which("cc" if source.suffix == ".c" else "c++")
        if compiler is None:
            pytest.skip(f"needs a compiler of {source.suffix} files")
        target = directory / "-".join([name, *(option.strip("-").replace("/", "_") for option in options)])
        if not target.exists():
            command = [compiler, "-O1", "-Wall", "-pthread", "-o", str(target), str(source), *options]
            subprocess.run(command, check=True)
        return target

    return compile_


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCE)}


def left(report: Path) -> dict[str, int]:
    """What a launch reported as left; it may still be tidying up when its program has ended."""
    deadline = time.monotonic() + TIMEOUT
    while not report.exists() or not report.read_text():
        assert time.monotonic() < deadline, "the launch did not report what is left"
        time.sleep(0.01)
    found: dict[str, int] = json.loads(report.read_text())
    return found


def npubox_exec(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", START, "exec", *map(str, arguments)]


def run(
    *command: str | Path, options: Sequence[str] = (), cwd: Path | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a program under `npubox exec`; its output is part of the failure where it fails."""
    done = subprocess.run(
        npubox_exec(*options, "--", *command),
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=TIMEOUT,
        env=environment(),
        check=False,
    )
    if check and done.returncode:
        pytest.fail(f"{command[0]} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done
