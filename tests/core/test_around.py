# SPDX-License-Identifier: Apache-2.0
"""Around the node: fdinfo, debugfs, events of devices that come and go (accel-core.md §1)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from npubox.core import uevent
from npubox.core.drm import debugfs
from npubox.core.drm.device import ACCEL_MAX_MINORS, DrmDevice, Minors
from npubox.core.drm.fdinfo import engine_stats, memory_stats
from npubox.core.drm.fence import Fence, new_context
from npubox.core.drm.file import DrmFile
from npubox.core.drm.gem import GemObject, Status, create_handle
from npubox.core.drm.reservation import Usage
from npubox.core.node import Node
from npubox.core.uevent import Uevent
from npubox.uapi import drm
from tests.core.refaccel import RefAccel, call, create, fails, make_device, open_node
from tests.core.test_dispatch import set_name


class Video(GemObject):
    """A buffer that is resident while it is small, and purgeable when it is a page."""

    @property
    def status(self) -> Status:
        resident = Status.RESIDENT if self.size <= 8192 else Status(0)
        return resident | (Status.PURGEABLE if self.size == 4096 else Status(0))


class Telling(RefAccel):
    """A driver with memory of its own and two engines."""

    def show_fdinfo(self, file: DrmFile) -> list[tuple[str, str]]:
        return [*engine_stats("npu", 1500, capacity=2), *memory_stats(file, "vram0")]


@pytest.fixture
def telling() -> Iterator[Node]:
    device = DrmDevice(Telling(), "0000:00:1f.3", minors=Minors())
    device.register()
    with open_node(device) as node:
        yield node
    device.unregister()


def test_fdinfo_of_a_pci_device_with_engines_and_memory(telling: Node) -> None:
    device = telling.device
    file = device.files[0]
    for size in (4096, 8192, 65536):
        with device.lock:
            item = Video(device, size)
            create_handle(file, item)
            item.put()
    lines = dict(line.split(":\t") for line in telling.fdinfo().splitlines())
    assert lines["drm-pdev"] == "0000:00:1f.3"
    assert (lines["drm-engine-npu"], lines["drm-engine-capacity-npu"]) == ("1500 ns", "2")
    assert lines["drm-total-vram0"] == "76 KiB"
    assert lines["drm-resident-vram0"] == "12 KiB"
    assert lines["drm-purgeable-vram0"] == "4 KiB"
    assert "drm-active-vram0" not in lines
    fence = Fence(new_context(), 1)
    item.reservation.add(fence, Usage.READ)
    assert "drm-active-vram0:\t64 KiB\n" in telling.fdinfo()
    fence.signal()
    assert "drm-active-vram0" not in telling.fdinfo()


def test_debugfs_lists_clients_and_names(device: DrmDevice, node: Node) -> None:
    with open_node(device, root=False) as user:
        set_name(user, b"second")
        call(node, drm.GEM_FLINK, handle=create(node, 5000).handle)
        texts = debugfs.files(device)
        comm = Path("/proc/self/comm").read_text().rstrip("\n")
        assert texts["name"] == "refaccel dev=refaccel.0 unique=refaccel.0\n"
        head, youngest, eldest = texts["clients"].splitlines()
        assert head.split() == ["command", "tgid", "dev", "master", "a", "uid", "magic", "name", "id"]
        assert len({len(head), len(youngest), len(eldest)}) == 1
        rest = [str(os.getpid()), "0", "n"]
        uid = str(os.geteuid())
        assert youngest.removeprefix(f"{comm:>20}").split() == [
            *(*rest, "n", uid, "0", "second", str(user.client_id)),
        ]
        assert eldest.removeprefix(f"{comm:>20}").split() == [
            *(*rest, "y", uid, "0", "<unset>", str(node.client_id)),
        ]
        assert texts["gem_names"].splitlines() == [
            "  name     size handles refcount",
            "     1     8192       1        1",
        ]


def test_a_client_that_died_is_unknown(device: DrmDevice, node: Node) -> None:
    device.files[0].pid = 0x7FFF_FFF0
    assert debugfs.files(device)["clients"].splitlines()[1].split()[0] == "<unknown>"


def test_devices_that_come_and_go_are_told() -> None:
    seen: list[Uevent] = []

    def broken(event: Uevent) -> None:
        raise ValueError(event)

    for subscriber in (broken, seen.append):
        uevent.subscribe(subscriber)
    device = make_device(Minors())
    device.unplug()
    for subscriber in (broken, seen.append):
        uevent.unsubscribe(subscriber)
    make_device(Minors()).unregister()
    add, remove = seen
    assert (add.action, add.device, remove.action) == ("add", "accel0", "remove")
    assert add.properties == {
        "ACTION": "add",
        "DEVPATH": "/devices/platform/refaccel.0/accel/accel0",
        "SUBSYSTEM": "accel",
        "MAJOR": "261",
        "MINOR": "0",
        "DEVNAME": "accel/accel0",
        "DEVTYPE": "accel_minor",
        "SEQNUM": add.properties["SEQNUM"],
    }
    assert int(remove.properties["SEQNUM"]) == int(add.properties["SEQNUM"]) + 1


def test_a_replugged_device_gets_the_next_minor_while_the_old_one_is_open() -> None:
    minors = Minors()
    first = make_device(minors)
    with open_node(first):
        first.unplug()
        second = make_device(minors)
        assert second.name == "accel1"
    third = make_device(minors)
    assert third.name == "accel0"
    for device in (second, third):
        device.unregister()


def test_minors_end_at_256() -> None:
    minors = Minors()
    devices = [make_device(minors) for _ in range(ACCEL_MAX_MINORS)]
    assert [device.minor for device in devices] == list(range(256))
    with fails(errno.ENOSPC):
        make_device(minors)
    devices[77].unregister()
    devices[77] = make_device(minors)
    assert devices[77].minor == 77
    assert minors.lookup(255) is devices[255]
    for device in devices:
        device.unregister()
