# SPDX-License-Identifier: Apache-2.0
"""Device nodes as declarations: what /dev and /sys show of a device, whichever driver is behind it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

ACCEL_MAJOR, ACCEL_CLASS = 261, "accel"
DRM, DMA_BUF, SYNC_FILE = ord("d"), ord("b"), ord(">")


@dataclass(frozen=True)
class NodeInfo:
    """One node under /dev.

    `ioctl_types` are the type bytes of the ioctls on the node and on the files that it gives. `parent` is the
    platform device below it, None for a device without one (below /sys/devices/virtual). `attributes` are
    files of its directory in /sys, by name, with their text, `class_attributes` those of its class. `tools`
    are paths at which programs look for a tool, with the command of ours that answers as it. `debugfs` is the
    text of its debugfs file `name`.
    """

    path: str
    major: int
    minor: int
    subsystem: str
    ioctl_types: tuple[int, ...]
    devtype: str | None = None
    parent: str | None = None
    compatible: tuple[str, ...] = ()
    driver: str = ""
    attributes: tuple[tuple[str, str], ...] = ()
    class_attributes: tuple[tuple[str, str], ...] = ()
    tools: tuple[tuple[str, str], ...] = ()
    debugfs: str | None = None
    special: bool = True

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    @property
    def rdev(self) -> int:
        return os.makedev(self.major, self.minor)


def accel_node(path: str, parent: str, compatible: tuple[str, ...], driver: str) -> NodeInfo:
    """The node of a DRM accel device (accel-core.md §1.3, §1.4)."""
    return NodeInfo(
        path=path,
        major=ACCEL_MAJOR,
        minor=int(os.path.basename(path).removeprefix("accel")),
        subsystem=ACCEL_CLASS,
        ioctl_types=(DRM, DMA_BUF, SYNC_FILE),
        devtype="accel_minor",
        parent=parent,
        compatible=compatible,
        driver=driver,
        debugfs=f"{driver} dev={parent} unique={parent}\n",
    )


def class_node(
    path: str,
    major: int,
    minor: int,
    subsystem: str,
    ioctl_type: int,
    *,
    parent: str | None = None,
    compatible: tuple[str, ...] = (),
    driver: str = "",
    attributes: tuple[tuple[str, str], ...] = (),
) -> NodeInfo:
    """The node of a character device of a class of its own, such as `ethosu` or `neuron_device`. Majors that
    Linux gives out dynamically are taken downwards from 511 by whoever declares the node."""
    return NodeInfo(
        path=path,
        major=major,
        minor=minor,
        subsystem=subsystem,
        ioctl_types=(ioctl_type,),
        parent=parent,
        compatible=compatible,
        driver=driver,
        attributes=attributes,
    )


MISC_MAJOR = 10


def sw_sync_nodes() -> tuple[NodeInfo, NodeInfo]:
    """Where test suites look for sw_sync: at the place they prefer, and where Linux has it (accel-core.md
    §2.9)."""
    device = class_node("/dev/sw_sync", MISC_MAJOR, 255, "misc", ord("W"))
    return device, replace(device, path="/sys/kernel/debug/sync/sw_sync", special=False)


def file_node(path: str) -> NodeInfo:
    """A file below /sys that does something when it is written to."""
    return NodeInfo(path, 0, 0, "", (), special=False)
