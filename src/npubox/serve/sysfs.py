# SPDX-License-Identifier: Apache-2.0
"""The files Linux shows of device nodes in /sys and debugfs.

Contents: the project's facts (accel-core.md §1.3, §1.4). Nothing here knows a driver.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import npubox
from npubox.core.nodes import NodeInfo

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


def write_tree(root: Path, nodes: Iterable[NodeInfo]) -> None:
    """Make sys/ below `root`: what a launch sees on top of the host's /sys."""
    for node in nodes:
        if not node.special:
            _write(root / node.path.lstrip("/"), "", mode=0o666)
            continue
        device = _place(node)
        if node.parent is not None:
            _write_parent(root / "sys/devices/platform" / node.parent, node, node.parent)
            _link(root / "sys/bus/platform/devices" / node.parent, f"../../../devices/platform/{node.parent}")
            _link(root / "sys" / device / "device", f"../../../{node.parent}")
        _write_device(root / "sys" / device, node)
        _link(root / "sys/class" / node.subsystem / node.name, f"../../{device}")
        for name, text in node.class_attributes:
            _write(root / "sys/class" / node.subsystem / name, text)
        for path, command in node.tools:
            _write_tool(root / path.lstrip("/"), command)
        _link(root / "sys/dev/char" / f"{node.major}:{node.minor}", f"../../{device}")
        if node.debugfs is not None:
            _write(root / "sys/kernel/debug" / node.subsystem / str(node.parent) / "name", node.debugfs)


class LiveAttributes:
    """Keeps the files of nodes up to date. They are overwritten in place: a mount on top shows that."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._shown: dict[NodeInfo, Mapping[str, str]] = {}

    def update(self, node: NodeInfo, texts: Mapping[str, str]) -> None:
        """An `AttributeWatcher`."""
        shown = self._shown.get(node) or dict(node.attributes)
        self._shown[node] = texts
        directory = self._root / "sys" / _place(node)
        for name, text in texts.items():
            if shown.get(name) != text:
                _overwrite(directory / name, text.encode())


def _overwrite(path: Path, text: bytes) -> None:
    path.chmod(0o644)
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(fd, text, 0)
        os.ftruncate(fd, len(text))
    finally:
        os.close(fd)
    path.chmod(0o444)


def _place(node: NodeInfo) -> str:
    """The directory of a node below /sys."""
    if node.parent is None:
        return f"devices/virtual/{node.subsystem}/{node.name}"
    return f"devices/platform/{node.parent}/{node.subsystem}/{node.name}"


def _write_device(device: Path, node: NodeInfo) -> None:
    _write(device / "dev", f"{node.major}:{node.minor}\n")
    uevent = {"MAJOR": node.major, "MINOR": node.minor, "DEVNAME": node.path.removeprefix("/dev/")}
    if node.devtype is not None:
        uevent["DEVTYPE"] = node.devtype
    _write(device / "uevent", _lines(uevent))
    _link(device / "subsystem", f"../../../../{'' if node.parent is None else '../'}class/{node.subsystem}")
    for name, text in node.attributes:
        _write(device / name, text)
    _write_power(device)


def _write_tool(path: Path, command: str) -> None:
    """A program that is a command of ours, run by the interpreter that runs us."""
    package = Path(npubox.__file__).parents[1]
    start = f"import sys; sys.path.insert(0, {str(package)!r}); from npubox.cli.entry import main; main()"
    _write(path, f'#!/bin/sh\nexec {shlex.join([sys.executable, "-P", "-c", start, command])} "$@"\n')
    path.chmod(0o555)


def _write_parent(parent: Path, node: NodeInfo, name: str) -> None:
    of = {"DRIVER": node.driver, "OF_NAME": "npu", "OF_FULLNAME": f"/soc/{_of_name(name)}"}
    of |= {f"OF_COMPATIBLE_{index}": text for index, text in enumerate(node.compatible)}
    of |= {"OF_COMPATIBLE_N": str(len(node.compatible))}
    modalias = f"of:NnpuT(null){''.join('C' + text for text in node.compatible)}"
    _write(parent / "uevent", _lines(of | {"MODALIAS": modalias}))
    _write(parent / "modalias", modalias + "\n")
    _write(parent / "driver_override", "(null)\n")
    _link(parent / "subsystem", "../../../bus/platform")
    _write_power(parent)


def _write_power(directory: Path) -> None:
    for name, text in POWER.items():
        _write(directory / "power" / name, text)


def _of_name(parent: str) -> str:
    """`4a900000.npu` is the node `npu@4a900000`."""
    address, _, name = parent.partition(".")
    return f"{name}@{address}" if name else parent


def _lines(values: dict[str, object] | dict[str, str]) -> str:
    return "".join(f"{key}={value}\n" for key, value in values.items())


def _write(path: Path, text: str, mode: int = 0o444) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_symlink():
        path.symlink_to(target)
