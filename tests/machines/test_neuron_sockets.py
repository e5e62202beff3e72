# SPDX-License-Identifier: Apache-2.0
"""`npubox vfio-user`: chips in a process of their own, with the Neuron driver in this one."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from npubox.bus.vfio_user.client import VfioUserDevice
from npubox.drivers.misc.neuron.driver import NeuronDriver
from npubox.drivers.misc.neuron.host_memory import AddressFile
from npubox.errors import DeviceError
from npubox.hw.neuron import address
from npubox.hw.neuron.address import Window, through
from npubox.hw.neuron.misc_ram import MiscReg
from npubox.machines.neuron_sockets import NeuronSockets, find_chips
from npubox.machines.preset import find_preset
from tests.cli.conftest import ROOT, START, Npubox, npubox, one_sentence
from tests.drivers.neuron.program import NOBODY, Program

__all__ = ["npubox"]

DEVICE_ID = address.MISC_RAM + MiscReg.DEVICE_ID


@contextlib.contextmanager
def served(machine: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The command in a process of its own, and its sockets."""
    with tempfile.TemporaryDirectory() as directory:
        socket = Path(directory) / "chip"
        command = [sys.executable, "-c", START, "vfio-user", machine, "--socket", str(socket)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
            assert server.stdout is not None
            count = find_chips(find_preset(machine)).chips
            lines = [server.stdout.readline().split() for _ in range(count)]
            assert [line[:4] for line in lines] == [
                [f"neuron{chip}:", "7064", "revision", "255"] for chip in range(count)
            ]
            yield server, [line[-1] for line in lines]
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) in (0, -signal.SIGKILL)


class Remote:
    """The driver's side, as `Program` uses it."""

    def __init__(self, sockets: list[str]) -> None:
        self.ports = [VfioUserDevice(path, f"0000:00:{0x10 + n:02x}.0") for n, path in enumerate(sockets)]
        self.files = [AddressFile() for _ in sockets]
        self.driver = NeuronDriver(self.ports, self.files)

    def program(self, index: int) -> Program:
        return Program(self, index, os.O_RDWR, NOBODY + index)  # type: ignore[arg-type]

    def close(self) -> None:
        self.driver.close()
        for file in self.files:
            file.close()
        for port in self.ports:
            port.close()


def test_four_chips_in_another_process() -> None:
    data = random.Random(7).randbytes(200_000)
    with served("inf1.6xlarge") as (_, sockets):
        remote = Remote(sockets)
        programs = [remote.program(index) for index in range(4)]
        assert [program.csr(DEVICE_ID) for program in programs] == [0, 1, 2, 3]
        east, west = through(Window.EAST, DEVICE_ID), through(Window.WEST, DEVICE_ID)
        assert [program.csr(east) for program in programs[:3]] == [1, 2, 3]
        assert [program.csr(west) for program in programs[1:]] == [0, 1, 2]
        for program in programs:
            near, far = program.alloc(200_704), program.alloc(200_704, channel=1, region=2)
            program.write(near, data)
            program.copy(near, far, len(data))
            assert program.read(far, len(data)) == data
            with program.mmap(200_704, program.pa(far)) as seen:
                assert seen[: len(data)] == data
                seen[:5] = b"store"
            assert program.read(far, 5) == b"store"
            program.free(near)
        remote.close()


def test_a_server_that_is_killed() -> None:
    with served("inf1.xlarge") as (server, sockets):
        remote = Remote(sockets)
        program = remote.program(0)
        handle = program.alloc(4096)
        server.kill()
        server.wait()
        with pytest.raises(OSError, match="gone"):
            program.write(handle, b"nobody is there")
        remote.close()


def test_bad_input(npubox: Npubox, tmp_path: Path) -> None:
    one_sentence(npubox("vfio-user", "imx93", "--socket", tmp_path / "s"), "imx93", "inf1.xlarge")
    one_sentence(npubox("vfio-user", "inf1.large", "--socket", tmp_path / "s"), "inf1.large")
    one_sentence(npubox("vfio-user", "inf1.xlarge", "--socket", tmp_path / "no" / "s"), "no/s")
    one_sentence(npubox("vfio-user", "inf1.xlarge", "--socket", tmp_path / ("s" * 110)), "sss: ", "too long")
    one_sentence(npubox("vfio-user", "inf1.xlarge", "--socket", tmp_path / "s", "-r", "1"), "-r")
    one_sentence(npubox("vfio-user", "inf1.xlarge", "--socket", tmp_path / "s", "--revision", "256"), "255")


def test_a_socket_in_use(tmp_path: Path) -> None:
    chips = find_chips(find_preset("inf1.xlarge"))
    first = NeuronSockets(chips, [str(tmp_path / "s")])
    with pytest.raises(DeviceError, match="in use"):
        NeuronSockets(chips, [str(tmp_path / "s")])
    first.close()
    NeuronSockets(chips, [str(tmp_path / "s")]).close()
