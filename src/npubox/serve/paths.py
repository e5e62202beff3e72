# SPDX-License-Identifier: Apache-2.0
"""Which node, or which of our files, a path means, resolved as the program that named it would.

With a mount namespace of its own (`Namespaced`) a program finds everything but the opening natively;
without one (`Rewritten`) what is served exists for the supervisor alone. Source: the project's facts
(device-nodes.md §5).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from npubox.core.nodes import NodeInfo
from npubox.serve import linux

MOST_STEPS = 1000
_OWN_FDINFO = re.compile(r"/proc/(?:self|thread-self|\d+)/fdinfo/(\d+)\Z")
_OWN_DESCRIPTOR = re.compile(r"/(?:proc/(?:self|thread-self|\d+)|dev)/fd/(\d+)\Z")


class Found(NamedTuple):
    """What a path leads to: a node, or (`file`, ours) something we show below /dev or /sys."""

    node: NodeInfo | None
    file: Path | None
    stat: os.stat_result


class Resolver(Protocol):
    def find(self, tid: int, path: str, follow: bool = True) -> Found | None:
        """What is ours at an absolute path of the program's; None for everything else."""


def own_descriptor(path: str) -> int | None:
    """The N of /proc/self/fd/N or /dev/fd/N."""
    match = _OWN_DESCRIPTOR.match(path)
    return int(match[1]) if match else None


def own_fdinfo(path: str) -> int | None:
    """The N of /proc/self/fdinfo/N."""
    match = _OWN_FDINFO.match(path)
    return int(match[1]) if match else None


def absolute(tid: int, directory: int, path: str) -> str:
    """`path` as the program means it, before links are followed. OSError if the directory is closed."""
    if path.startswith("/"):
        return path
    start = f"/proc/{tid}/cwd" if directory == linux.AT_FDCWD else f"/proc/{tid}/fd/{directory}"
    return f"{os.readlink(start)}/{path}"


class Namespaced:
    """Paths of a launch in a mount namespace of its own."""

    def __init__(self, nodes: Sequence[NodeInfo]) -> None:
        self._by_path = {node.path: node for node in nodes}
        self._by_rdev = {node.rdev: node for node in reversed(nodes) if node.special}

    def find(self, tid: int, path: str, follow: bool = True) -> Found | None:
        try:
            found = _stat_in_root(tid, path, follow)
        except OSError:
            return None
        node = self._by_path.get(path)
        if node is None and stat.S_ISCHR(found.st_mode):
            node = self._by_rdev.get(found.st_rdev)
        if node is None and stat.S_ISREG(found.st_mode) and not found.st_size:
            node = self._stand_in(tid, found)
        return None if node is None else Found(node, None, found)

    def _stand_in(self, tid: int, found: os.stat_result) -> NodeInfo | None:
        """Where nodes cannot be made, an empty file stands at the node's path."""
        for node in self._by_path.values():
            try:
                own = _stat_in_root(tid, node.path, True)
            except OSError:
                continue
            if (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino):
                return node
        return None


def _stat_in_root(tid: int, path: str, follow: bool) -> os.stat_result:
    """stat(2) or lstat(2) of the program's path, links followed in its own root."""
    root = os.open(f"/proc/{tid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
        fd = linux.open_in_root(root, path, flags)
    finally:
        os.close(root)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


class Rewritten:
    """Paths of a launch without a mount namespace: what exists in our tree and not on the host is ours.

    Links below /dev and /sys are followed, whichever side they are on; a program's own link elsewhere
    that points there is not.
    """

    def __init__(self, nodes: Sequence[NodeInfo], tree: Path) -> None:
        self._nodes = {node.path: node for node in nodes}
        self._tree = tree
        for node in nodes:
            stand_in = tree / node.path.lstrip("/")
            stand_in.parent.mkdir(parents=True, exist_ok=True)
            stand_in.touch()
            stand_in.chmod(0o666)

    def find(self, tid: int, path: str, follow: bool = True) -> Found | None:
        tree = f"{self._tree}/"
        if path.startswith(tree):  # relative to a directory of ours that the program holds open
            path = path[len(tree) - 1 :]
        if not path.startswith(("/dev/", "/sys/")) and "/.." not in path:
            return None
        resolved = self._resolve(path, follow)
        if resolved is None:
            return None
        node = self._nodes.get(resolved)
        file = self._tree / resolved.lstrip("/")
        try:
            found = file.lstat()
        except OSError:
            return None
        if node is None and stat.S_ISDIR(found.st_mode) and os.path.lexists(resolved):
            return None
        return Found(node, file, found)

    def _resolve(self, path: str, follow: bool) -> str | None:
        """`path` with its links followed; None where it has too many."""
        done: list[str] = []
        todo = [part for part in reversed(path.split("/")) if part and part != "."]
        for _ in range(MOST_STEPS):
            if not todo:
                return "/" + "/".join(done)
            part = todo.pop()
            if part == "..":
                done[-1:] = []
                continue
            done.append(part)
            if todo or follow:
                target = self._link("/".join(done))
                if target is not None:
                    done = [] if target.startswith("/") else done[:-1]
                    todo += [piece for piece in reversed(target.split("/")) if piece and piece != "."]
        return None

    def _link(self, relative: str) -> str | None:
        for place in (f"{self._tree}/{relative}", f"/{relative}"):
            try:
                return os.readlink(place)
            except OSError:
                continue
        return None
