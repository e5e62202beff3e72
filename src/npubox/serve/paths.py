# SPDX-License-Identifier: Apache-2.0
"""Which node a path means, resolved as the program that named it would.

With a mount namespace of its own (`Namespaced`) a program finds everything but the opening natively, so
only a path's end matters here. Source: the project's facts (device-nodes.md §5).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence

from npubox.serve import linux
from npubox.serve.nodes import NodeInfo

O_PATH = os.O_PATH
_OWN_DESCRIPTOR = re.compile(r"/(?:proc/(?:self|thread-self|\d+)|dev)/fd/(\d+)\Z")


def own_descriptor(path: str) -> int | None:
    """The N of /proc/self/fd/N or /dev/fd/N."""
    match = _OWN_DESCRIPTOR.match(path)
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
        self._by_rdev = {node.rdev: node for node in nodes}

    def find(self, tid: int, path: str) -> NodeInfo | None:
        """The node behind an absolute path of the program's."""
        node = self._by_path.get(path)
        if node is not None:
            return node
        try:
            found = self.stat(tid, path)
        except OSError:
            return None
        if stat.S_ISCHR(found.st_mode) and found.st_rdev in self._by_rdev:
            return self._by_rdev[found.st_rdev]
        return self._stand_in(tid, found)

    def stat(self, tid: int, path: str) -> os.stat_result:
        """stat(2) of the program's path, links followed in its own root."""
        root = os.open(f"/proc/{tid}/root", O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fd = linux.open_in_root(root, path, O_PATH | os.O_CLOEXEC)
        finally:
            os.close(root)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def _stand_in(self, tid: int, found: os.stat_result) -> NodeInfo | None:
        """Where nodes cannot be made, an empty file stands at the node's path."""
        if not stat.S_ISREG(found.st_mode) or found.st_size:
            return None
        for node in self._by_path.values():
            try:
                own = self.stat(tid, node.path)
            except OSError:
                continue
            if (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino):
                return node
        return None
