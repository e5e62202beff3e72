# SPDX-License-Identifier: Apache-2.0
"""The mount namespace of a launch (tier A): /dev with the served nodes, /sys with what belongs to them.

Everything is done in the program's own process before it executes, so it needs no clean-up and nobody
else sees it. Source: the project's facts (device-nodes.md §5).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from npubox.core.nodes import NodeInfo
from npubox.serve import linux
from npubox.serve.linux import MS_BIND, MS_NOSUID, MS_PRIVATE, MS_RDONLY, MS_REC

NODE_MODE = 0o666
OVERLAYS = (
    *("sys/class", "sys/devices", "sys/dev", "sys/bus/platform/devices"),
    *("sys/kernel/debug", "sys/module", "opt"),
)
NEEDED = ("sys/class", "sys/devices", "sys/dev")


def enter(tree: Path, nodes: Sequence[NodeInfo]) -> None:
    """Move this process into a namespace of its own and mount the tree. OSError where that is refused."""
    user, group = os.getuid(), os.getgid()
    if os.geteuid() == 0:
        linux.unshare(linux.CLONE_NEWNS)
    else:
        linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")
    linux.mount("none", "/", None, MS_PRIVATE | MS_REC)
    _mount_overlays(tree)
    _mount_dev(nodes)


def _mount_overlays(tree: Path) -> None:
    for place in OVERLAYS:
        if not (tree / place).is_dir():
            continue
        try:
            lower = f"lowerdir={tree / place}:/{place}"
            linux.mount("overlay", f"/{place}", "overlay", MS_RDONLY, lower)
        except OSError:
            if place in NEEDED:
                raise


def _mount_dev(nodes: Sequence[NodeInfo]) -> None:
    """A /dev with the nodes and, reached through a descriptor of the covered one, all else that it has."""
    new, covered = Path("/dev"), os.open("/dev", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    linux.mount("tmpfs", str(new), "tmpfs", MS_NOSUID, "mode=755,size=64k")
    nodes = [node for node in nodes if node.special]
    served = {Path(node.path).relative_to("/dev").parts[0] for node in nodes}
    for entry in os.scandir(f"/proc/self/fd/{covered}"):
        if entry.name not in served:
            with contextlib.suppress(OSError):  # what the host cannot bind the program does without
                _bring_over(entry, new / entry.name)
    for node in nodes:
        _make_node(Path(node.path), node)
    os.close(covered)


def _bring_over(entry: os.DirEntry[str], target: Path) -> None:
    if entry.is_symlink():
        target.symlink_to(os.readlink(entry.path))
    elif entry.is_dir():
        target.mkdir()
        linux.mount(entry.path, str(target), None, MS_BIND | MS_REC)
    else:
        target.touch()
        linux.mount(entry.path, str(target), None, MS_BIND)


def _make_node(path: Path, node: NodeInfo) -> None:
    """A device node, or an empty file to be answered for where only root may make nodes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.mknod(path, stat.S_IFCHR | NODE_MODE, node.rdev)
    except PermissionError:
        path.touch()
    path.chmod(NODE_MODE)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
