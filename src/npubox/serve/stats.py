# SPDX-License-Identifier: Apache-2.0
"""`struct stat` and `struct statx` as a program is to see them."""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass

from npubox.core.nodes import NodeInfo
from npubox.serve.syscalls import Arch

STATX_BASIC = 0x7FF
BLOCK_SIZE = 4096
NS = 10**9
# mask, blksize, attributes, nlink, uid, gid, mode, ino, size, blocks, attributes_mask, 4 times, rdev, dev
_STATX = struct.Struct("<IIQIIIH2xQQQQ" + "qI4x" * 4 + "IIII112x")


@dataclass(frozen=True)
class Shown:
    """What stat(2) says of a file."""

    dev: int
    ino: int
    nlink: int
    mode: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, found: os.stat_result, node: NodeInfo | None = None) -> Shown:
        """`found` itself, or the node that it stands for."""
        if node is not None and not node.special:
            node = None
        return cls(
            dev=found.st_dev,
            ino=found.st_ino,
            nlink=found.st_nlink if node is None else 1,
            mode=found.st_mode if node is None else stat.S_IFCHR | stat.S_IMODE(found.st_mode),
            uid=found.st_uid,
            gid=found.st_gid,
            rdev=found.st_rdev if node is None else node.rdev,
            size=found.st_size if node is None else 0,
            blocks=found.st_blocks if node is None else 0,
            atime_ns=found.st_atime_ns,
            mtime_ns=found.st_mtime_ns,
            ctime_ns=found.st_ctime_ns,
        )

    @classmethod
    def anonymous(cls, size: int) -> Shown:
        """A file that was never opened by a path: only its owner's permissions, and no type."""
        return cls(0, 0, 1, 0o600, os.geteuid(), os.getegid(), 0, size, 0, 0, 0, 0)


def pack_stat(arch: Arch, shown: Shown) -> bytes:
    """struct stat of the architecture."""
    values = {"blksize": BLOCK_SIZE, **vars(shown)}
    times = [part for time in (shown.atime_ns, shown.mtime_ns, shown.ctime_ns) for part in divmod(time, NS)]
    return arch.stat.pack(*(values[name] for name in arch.stat_order), *times)


def pack_statx(shown: Shown) -> bytes:
    """struct statx, 256 bytes, with the basic fields and no birth time."""
    access, modify, change = (divmod(time, NS) for time in (shown.atime_ns, shown.mtime_ns, shown.ctime_ns))
    return _STATX.pack(
        *(STATX_BASIC, BLOCK_SIZE, 0, shown.nlink, shown.uid, shown.gid, shown.mode, shown.ino),
        *(shown.size, shown.blocks, 0, *access, 0, 0, *change, *modify),
        *(os.major(shown.rdev), os.minor(shown.rdev), os.major(shown.dev), os.minor(shown.dev)),
    )
