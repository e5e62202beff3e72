# SPDX-License-Identifier: Apache-2.0
"""The template driver that CONTRIBUTING.md walks through runs as it shows, and fails as a driver should."""

from __future__ import annotations

import ctypes
import errno
import subprocess
import sys

import pytest
from examples import driver

from npubox.bus.virtual import AddressSpace, InterruptLine, VirtualClock, VirtualPort
from npubox.core.node import Node
from npubox.uapi.drm_syncobj import SYNCOBJ_CREATE
from npubox.uapi.ioctl import Ioctl, StructT
from tests.docs.blocks import ROOT, blocks


def test_the_template_prints_what_is_shown() -> None:
    (shown,) = [
        block for block in blocks(ROOT / "CONTRIBUTING.md", "console") if "examples/driver.py" in block.text
    ]
    command, output = shown.text.split("\n", 1)
    assert command == "$ python examples/driver.py"
    done = subprocess.run(
        [sys.executable, "examples/driver.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (done.stdout.strip(), done.stderr) == (output.strip(), "")


def test_the_template_refuses_and_lets_go() -> None:
    dma, clock, line = AddressSpace(), VirtualClock(), InterruptLine()
    device = driver.AdderDriver(VirtualPort(driver.Adder(dma, clock, line), dma, clock, line)).device
    device.register()

    def call(declaration: Ioctl[StructT], **fields: int) -> StructT:
        args = declaration.struct(**fields)
        node.ioctl(declaration, ctypes.addressof(args))
        return args

    with Node.open(device) as node:
        handle = call(driver.CREATE_BO, size=4096).handle
        done = call(SYNCOBJ_CREATE).handle
        for fields, error in (
            ({"handle": 9, "size": 1, "syncobj": done}, errno.ENOENT),
            ({"handle": handle, "size": 1, "syncobj": 9}, errno.ENOENT),
            ({"handle": handle, "size": 4097, "syncobj": done}, errno.EINVAL),
            ({"handle": handle, "size": 1, "syncobj": done, "pad": 1}, errno.EINVAL),
        ):
            with pytest.raises(OSError) as caught:  # noqa: PT011
                call(driver.RUN, **fields)
            assert caught.value.errno == error
        for _ in range(50):
            call(driver.RUN, handle=handle, size=4096, syncobj=done)
    device.unplug()
    assert (device.object_count, dma._mappings) == (0, [])
    clock.close()
