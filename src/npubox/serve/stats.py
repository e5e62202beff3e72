# SPDX-License-Identifier: Apache-2.0
"""`struct stat` and `struct statx` of a served node."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from npubox.serve.nodes import NodeInfo
from npubox.serve.syscalls import Arch

STATX_BASIC = 0x7FF
BLOCK_SIZE = 4096
# mask, blksize, attributes, nlink, uid, gid, mode, ino, size, blocks, attributes_mask, 4 times, rdev, dev
_STATX = struct.Struct("<IIQIIIH2xQQQQ" + "qI4x" * 4 + "IIII112x")


@dataclass(frozen=True)
class Identity:
    """What the program's own stat(2) of the node says: its device and inode number, owner and times."""

    dev: int
    ino: int
    mode: int
    uid: int
    gid: int
    times: tuple[int, int, int]

    @classmethod
    def of(cls, found: os.stat_result) -> Identity:
        times = (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)
        return cls(found.st_dev, found.st_ino, found.st_mode & 0o7777, found.st_uid, found.st_gid, times)


S_IFCHR = 0o020000


def pack_stat(arch: Arch, node: NodeInfo, identity: Identity) -> bytes:
    """The node as struct stat of the architecture."""
    values = {
        "dev": identity.dev,
        "ino": identity.ino,
        "nlink": 1,
        "mode": S_IFCHR | identity.mode,
        "uid": identity.uid,
        "gid": identity.gid,
        "rdev": node.rdev,
        "size": 0,
        "blksize": BLOCK_SIZE,
        "blocks": 0,
    }
    times = [part for time in identity.times for part in divmod(time, 10**9)]
    return arch.stat.pack(*(values[name] for name in arch.stat_order), *times)


def pack_statx(node: NodeInfo, identity: Identity) -> bytes:
    """The node as struct statx, 256 bytes, with the basic fields; it has no birth time."""
    access, modify, change = (divmod(time, 10**9) for time in identity.times)
    head = (1, identity.uid, identity.gid, S_IFCHR | identity.mode, identity.ino, 0, 0, 0)
    device = (os.major(identity.dev), os.minor(identity.dev))
    return _STATX.pack(
        *(STATX_BASIC, BLOCK_SIZE, 0, *head, *access, 0, 0, *change, *modify),
        *(node.major, node.minor, *device),
    )
