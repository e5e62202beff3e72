# SPDX-License-Identifier: Apache-2.0
"""Device nodes as declarations, and the files Linux shows of them in /sys and debugfs.

Contents: the project's facts (accel-core.md §1.3, §1.4). A driver with nodes of its own adds a
declaration; nothing here knows a driver.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

POWER = {
    "async": "disabled\n",
    "autosuspend_delay_ms": "",
    "control": "auto\n",
    "runtime_active_kids": "0\n",
    "runtime_active_time": "0\n",
    "runtime_enabled": "disabled\n",
    "runtime_status": "unsupported\n",
    "runtime_suspended_time": "0\n",
    "runtime_usage": "0\n",
}


@dataclass(frozen=True)
class NodeInfo:
    """One node under /dev. `ioctl_type` is the type byte of its driver's ioctls; `parent` the platform
    device below it; `debugfs` the text of its debugfs file `name`, None for a node that has none."""

    path: str
    major: int
    minor: int
    subsystem: str
    devtype: str | None
    ioctl_type: int
    parent: str
    compatible: tuple[str, ...] = ()
    driver: str = ""
    debugfs: str | None = None

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    @property
    def rdev(self) -> int:
        return os.makedev(self.major, self.minor)


def accel_node(path: str, parent: str, compatible: tuple[str, ...], driver: str) -> NodeInfo:
    """The node of a DRM accel device."""
    return NodeInfo(
        path=path,
        major=261,
        minor=int(os.path.basename(path).removeprefix("accel")),
        subsystem="accel",
        devtype="accel_minor",
        ioctl_type=ord("d"),
        parent=parent,
        compatible=compatible,
        driver=driver,
        debugfs=f"{driver} dev={parent} unique={parent}\n",
    )


def write_tree(root: Path, nodes: Iterable[NodeInfo]) -> None:
    """Make sys/ below `root`: what a launch sees on top of the host's /sys."""
    for node in nodes:
        _write_device(root / "sys/devices/platform" / node.parent, node)
        device = f"devices/platform/{node.parent}/{node.subsystem}/{node.name}"
        _link(root / "sys/class" / node.subsystem / node.name, f"../../{device}")
        _link(root / "sys/dev/char" / f"{node.major}:{node.minor}", f"../../{device}")
        _link(root / "sys/bus/platform/devices" / node.parent, f"../../../devices/platform/{node.parent}")
        if node.debugfs is not None:
            _write(root / "sys/kernel/debug" / node.subsystem / node.parent / "name", node.debugfs)


def _write_device(parent: Path, node: NodeInfo) -> None:
    device = parent / node.subsystem / node.name
    _write(device / "dev", f"{node.major}:{node.minor}\n")
    uevent = {"MAJOR": node.major, "MINOR": node.minor, "DEVNAME": node.path.removeprefix("/dev/")}
    if node.devtype is not None:
        uevent["DEVTYPE"] = node.devtype
    _write(device / "uevent", _lines(uevent))
    _link(device / "device", f"../../../{node.parent}")
    _link(device / "subsystem", f"../../../../../class/{node.subsystem}")
    for directory in (device, parent):
        for name, text in POWER.items():
            _write(directory / "power" / name, text)
    of = {"DRIVER": node.driver, "OF_NAME": "npu", "OF_FULLNAME": f"/soc/{_of_name(node.parent)}"}
    of |= {f"OF_COMPATIBLE_{index}": text for index, text in enumerate(node.compatible)}
    of |= {"OF_COMPATIBLE_N": str(len(node.compatible))}
    modalias = f"of:NnpuT(null){''.join('C' + text for text in node.compatible)}"
    _write(parent / "uevent", _lines(of | {"MODALIAS": modalias}))
    _write(parent / "modalias", modalias + "\n")
    _write(parent / "driver_override", "(null)\n")
    _link(parent / "subsystem", "../../../bus/platform")


def _of_name(parent: str) -> str:
    """`4a900000.npu` is the node `npu@4a900000`."""
    address, _, name = parent.partition(".")
    return f"{name}@{address}" if name else parent


def _lines(values: dict[str, object] | dict[str, str]) -> str:
    return "".join(f"{key}={value}\n" for key, value in values.items())


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o444)


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_symlink():
        path.symlink_to(target)
