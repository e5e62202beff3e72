# SPDX-License-Identifier: Apache-2.0
"""dma-bufs, sync files and timelines of programs: on a machine of the launch's own and on one that is
served."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from npubox.serve.rendezvous import socket_path
from tests.serve.conftest import CLIENTS, START, TIMEOUT, environment, left, run

CLIENT = CLIENTS / "shared_buffers.py"
PRINTED = {
    "same_pages": "hello\n-1 Invalid argument\n",
    "outlives": "42\n",
    "storm": "100 True True\n",
    "polls": "busy [] 0\npipe True\nepoll []\nfence True\nepoll True\n",
    "selects": "busy ([], [], [])\nhung up ([], [], []) True\npipe True\nfence True\ndone True\n",
    "waits_end": "True True\n",
}


@pytest.mark.parametrize("options", [(), ("--full",)], ids=["default", "full"])
@pytest.mark.parametrize("what", PRINTED)
def test_on_the_launchs_own_machine(tmp_path: Path, what: str, options: tuple[str, ...]) -> None:
    """And nothing of it is left afterwards."""
    report = tmp_path / "report"
    command = [sys.executable, "-m", "tests.serve.counted", str(report), "--preset=refaccel", *options, "--"]
    done = subprocess.run(
        [*command, sys.executable, str(CLIENT), what],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=environment(),
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == (PRINTED[what], "", 0)
    counts = left(report)
    assert {name: counts[name] for name in ("files", "objects", "bytes")} == {
        "files": 0,
        "objects": 0,
        "bytes": 0,
    }


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    name = f"shared-buffers-{sys.hexversion}"
    with subprocess.Popen(
        [sys.executable, "-c", START, "serve", name, "--preset", "refaccel"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith(name)
        yield name
        server.terminate()
    assert not socket_path(name).exists()


@pytest.mark.parametrize("what", PRINTED)
def test_on_a_served_machine(served: str, what: str) -> None:
    assert run(sys.executable, CLIENT, what, options=("--machine", served, "--full")).stdout == PRINTED[what]
