# SPDX-License-Identifier: Apache-2.0
"""The machine `refaccel`: two nodes, no device behind them."""

from __future__ import annotations

import errno
import os

from npubox import machines
from npubox.core.node import adopt
from npubox.core.uevent import Uevent
from npubox.uapi import drm, refaccel, sw_sync
from tests.core.refaccel import call, fails
from tests.core.syncobjs import readable


def test_buffers_and_fences() -> None:
    with machines.open_preset("refaccel") as machine:
        with machine.open_node("/dev/accel/accel0") as node:
            assert call(node, drm.VERSION).version_patchlevel == 3
            bo = call(node, refaccel.CREATE_BO, size=5000)
            with node.mmap(5000, offset=bo.offset) as mapping:
                mapping[:5] = b"bytes"
        with machine.open_node("/dev/sw_sync", os.O_RDWR) as timeline:
            fence = call(timeline, sw_sync.CREATE_FENCE, value=1).fence
            assert not readable(fence)
            call(timeline, sw_sync.INC, value=1)
            assert readable(fence)
            adopt(fence).close()


def test_debugfs_of_its_nodes() -> None:
    with machines.open_preset("refaccel") as machine, machine.open_node("/dev/accel/accel0") as node:
        (files,) = machine.debugfs().values()
        assert files["name"] == "refaccel dev=refaccel.0 unique=refaccel.0\n"
        assert files["clients"].splitlines()[1].split()[-1] == str(node.client_id)


def test_power_off_is_an_unplug_that_is_told() -> None:
    events: list[Uevent] = []
    machine = machines.open_preset("refaccel")
    machine.watch_uevents(events.append)
    with machine.open_node() as node:
        machine.close()
        with fails(errno.ENODEV):
            call(node, drm.VERSION)
    assert [(event.action, event.properties["SUBSYSTEM"]) for event in events] == [("remove", "accel")]
    machines.open_preset("refaccel").close()
    assert len(events) == 1
