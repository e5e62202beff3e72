# SPDX-License-Identifier: Apache-2.0
"""A stock Debian kernel in QEMU 11 finds the Inferentia that `npubox vfio-user` serves, and uses its BARs.

Downloads packages, so only `make test-vm` runs it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.debian import Unavailable
from tests.vm.guest import LIMIT, boot
from tests.vm.packages import Packages, obtain

PROBE = Path(__file__).with_name("probe.c")
START = "from npubox.cli.entry import main; main()"

pytestmark = pytest.mark.skipif(
    "NPUBOX_TEST_VM" not in os.environ, reason="downloads packages: run make test-vm"
)


@pytest.fixture
def packages() -> Packages:
    try:
        return obtain()
    except Unavailable as why:
        pytest.skip(f"no virtual machine here: {why}")


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short enough for the path of a socket."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@pytest.fixture
def probe(directory: Path) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler for the guest's program")
    target = directory / "probe"
    subprocess.run([compiler, "-static", "-O1", "-o", target, PROBE], check=True)
    return target


@pytest.mark.parametrize("revision", [0, 255])
def test_a_stock_kernel_uses_the_chip(
    packages: Packages, directory: Path, probe: Path, revision: int
) -> None:
    socket = directory / "chip"
    command = [sys.executable, "-c", START, "vfio-user", "inf1.xlarge", "--socket", str(socket)]
    with subprocess.Popen(
        [*command, "--revision", str(revision)], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            assert server.stdout.readline() == f"neuron0: 7064 revision {revision} at {socket}\n"
            console = boot(packages, directory, probe, [socket])
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(LIMIT) == 0
    seen = dict(line.split(" ", 1) for line in console.splitlines() if len(line.split()) == 2)
    assert seen.items() >= {
        ("vendor", "0x1d0f"),
        ("device", "0x7064"),
        ("revision", f"0x{revision:02x}"),
        ("class", "0x120000"),
        ("command", "0x6"),
        ("status", "0x80000000"),
        ("device_id", "0x5"),
        ("semaphore", "0x7"),
        ("head", "0x40000003"),
        ("copied", "1"),
        ("dram", "0xc0de0001"),
        ("semaphore_by_dma", "0xc0de0007"),
        ("end", "0"),
    }
    assert not socket.exists()
