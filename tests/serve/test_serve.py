# SPDX-License-Identifier: Apache-2.0
"""`npubox serve`: one machine for many launches, which outlives them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.conftest import START, TIMEOUT, Compile, environment, npubox_exec, run
from tests.serve.jobs import digits

CAP = "fcntl.ioctl(fd, 0xC010640C, bytes([5]) + bytes(15))"


class Served:
    def __init__(self, name: str, *options: str) -> None:
        self.name = name
        command = [sys.executable, "-c", START, "serve", name, *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
        assert self.process.stdout is not None
        self.greeting = self.process.stdout.readline()

    @property
    def options(self) -> tuple[str, ...]:
        return "--machine", self.name

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(TIMEOUT) == 0


@pytest.fixture(scope="module")
def machine() -> Iterator[Served]:
    served = Served(f"test-{uuid.uuid4().hex[:8]}")
    yield served
    served.stop()


def test_it_says_how_to_use_it(machine: Served) -> None:
    assert f"npubox exec --machine {machine.name}" in machine.greeting


def test_launches_one_after_the_other(machine: Served, compiled: Compile, tmp_path: Path) -> None:
    (tmp_path / "job").write_bytes(digits().content)
    for _ in range(3):
        run(compiled("mesa_like"), "job", "out", "3", options=machine.options, cwd=tmp_path)
        assert (tmp_path / "out").read_bytes() == digits().expected * 3


def test_launches_at_once(machine: Served, compiled: Compile, tmp_path: Path) -> None:
    (tmp_path / "job").write_bytes(digits().content)
    client = compiled("mesa_like")
    launches = [
        subprocess.Popen(
            npubox_exec(*machine.options, "--", client, "job", f"out{index}", "4"),
            cwd=tmp_path,
            env=environment(),
        )
        for index in range(4)
    ]
    assert [launch.wait(TIMEOUT) for launch in launches] == [0] * 4
    for index in range(4):
        assert (tmp_path / f"out{index}").read_bytes() == digits().expected * 4


def test_client_ids_go_on_and_handles_do_not_leak(machine: Served) -> None:
    code = (
        "import fcntl, os, struct\n"
        "fd = os.open('/dev/accel/accel0', os.O_RDWR)\n"
        "make = bytearray(struct.pack('QII', 5000, 0, 0))\n"
        "fcntl.ioctl(fd, 0xC0106441, make)\n"
        "where = bytearray(struct.pack('IIQ', struct.unpack('QII', make)[2], 0, 0))\n"
        "fcntl.ioctl(fd, 0xC0106443, where)\n"
        "print(struct.unpack('QII', make)[2], hex(struct.unpack('IIQ', where)[2]))\n"
    )
    for _ in range(3):
        done = run(sys.executable, "-c", code, options=machine.options)
        assert done.stdout == "1 0x100000000\n"  # the object of the launch before is gone


def test_hostile_callers(machine: Served, compiled: Compile) -> None:
    for mode in ("vanishing", "limits", "huge", "bomb"):
        run(compiled("hostile"), mode, options=machine.options)


def test_a_second_one_of_that_name_is_refused(machine: Served) -> None:
    again = subprocess.run(
        [sys.executable, "-c", START, "serve", machine.name],
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert again.returncode == 1
    assert again.stderr == f"npubox: a machine called {machine.name} is served already: choose another name\n"


def test_when_the_server_dies() -> None:
    served = Served(f"test-{uuid.uuid4().hex[:8]}")
    code = (
        "import fcntl, os, sys\n"
        f"fd = os.open('/dev/accel/accel0', os.O_RDWR); {CAP}; print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        f"try: {CAP}\n"
        "except OSError as error: print(error.errno)\n"
    )
    process = subprocess.Popen(
        npubox_exec(*served.options, "--", sys.executable, "-c", code),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.kill(served.process.pid, signal.SIGKILL)
    served.process.wait(TIMEOUT)
    output, _ = process.communicate("\n", timeout=TIMEOUT)
    assert output == "19\n"  # ENODEV
    assert process.returncode == 0
