# SPDX-License-Identifier: Apache-2.0
"""Chips in a process of their own, and what is left when that dies."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

from npubox.core.node import own_caller
from npubox.machines.machine import Parts
from npubox.machines.preset import find_preset
from tests.core.refaccel import fails


def test_a_process_of_chips_that_dies(tmp_path: Path) -> None:
    file = tmp_path / "machine.toml"
    file.write_text(
        'description = "one chip"\npolicy = "strict"\n[[neuron]]\ndevice = 0x7064\nrevision = 255\nslot = 1\n'
        "apart = true\n"
    )
    parts = Parts(find_preset(str(file)), split=True)
    (pid,) = parts.processes
    (node,) = parts.nodes
    parts.open(node, os.O_RDWR, own_caller()).release()
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while not parts.parts[0].driver.unplugged:  # type: ignore[attr-defined]
        assert time.monotonic() < deadline
        time.sleep(0.001)
    with fails(errno.ENODEV):
        parts.open(node, os.O_RDWR, own_caller())
    parts.close()
    assert not Path(f"/proc/{pid}").exists()
