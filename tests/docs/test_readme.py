# SPDX-License-Identifier: Apache-2.0
"""What README.md shows is what happens: its code runs, its sessions print what they print.

In a `console` block `...` stands for anything, as in doctest; host times are not compared. `make demo` is
played as the example that it runs, without the installation before it.
"""

from __future__ import annotations

import doctest
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, Block, blocks

README = ROOT / "README.md"
HOST_TIME = re.compile(r"[\d.,]+ ms\b")
COMMANDS = {
    "npubox": """-c 'from npubox.cli.main import main; main()' "$@" """,
    "make": "examples/digits.py",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A place like the top of the repository, and the commands of the README in its `bin`."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "bin").mkdir()
    for name, arguments in COMMANDS.items():
        script = tmp_path / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}\n')
        script.chmod(0o755)
    return tmp_path


def run(folder: Path, *command: str) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "80",
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    assert not done.stderr, done.stderr
    return done.stdout


def sessions(block: Block) -> Iterator[tuple[str, str]]:
    """Each command of a console block with the output shown for it."""
    for piece in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, shown = piece.partition("\n")
        yield command, shown


def comparable(output: str) -> str:
    return "".join(f"{HOST_TIME.sub('# ms', line).rstrip()}\n" for line in output.splitlines())


@pytest.mark.parametrize("block", blocks(README, "console"), ids=str)
def test_session(block: Block, folder: Path) -> None:
    if "tflite-micro" in block.text and platform.machine() != "x86_64":
        pytest.skip("tflite-micro's wheels are for x86-64 only: elsewhere --verify names LiteRT")
    played = list(sessions(block))
    assert played
    for command, shown in played:
        assert command == "make demo" or command.startswith("npubox ")
        printed = run(folder, "sh", "-c", command)
        same = doctest.OutputChecker().check_output(comparable(shown), comparable(printed), doctest.ELLIPSIS)
        assert same, (
            f"line {block.line} of README.md shows for `{command}`:\n{shown}\nbut it prints:\n{printed}"
        )


def test_make_demo_runs_what_the_session_plays() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\ndemo:")[2].splitlines()[1]
    assert recipe.split() == ["$(BIN)/python", "examples/digits.py"]


@pytest.mark.parametrize("block", blocks(README, "python"), ids=str)
def test_code(block: Block, folder: Path) -> None:
    """A block that starts with a test file's name is run by pytest, which has to pass a test."""
    name = re.match(r"# (test_\w+\.py)\n", block.text)
    if name is None:
        assert run(folder, sys.executable, "-W", "error", "-c", block.text)
        return
    (folder / name[1]).write_text(block.text)
    report = run(folder, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", name[1])
    assert re.search(r"^1 passed", report, re.MULTILINE), report


def test_it_shows_both_commands_and_code() -> None:
    assert [line for block in blocks(README, "sh") for line in block.text.splitlines() if "make" in line]
    assert len(blocks(README, "python")) == 4
    assert len(blocks(README, "console")) == 3
