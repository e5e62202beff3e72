# SPDX-License-Identifier: Apache-2.0
"""System call numbers of the architectures that can be served, and how they lay out `struct stat`.

Source: the project's facts (device-nodes.md §3). x86-64 is tested; aarch64 was never run.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from types import MappingProxyType

from npubox.errors import DeviceError


@dataclass(frozen=True)
class Arch:
    """One architecture. `stat` packs dev, ino, mode, nlink, uid, gid, rdev, size, blksize, blocks and
    three times (seconds, nanoseconds)."""

    name: str
    audit: int
    numbers: MappingProxyType[str, int]
    seccomp: int
    tkill: int
    o_largefile: int
    stat: struct.Struct
    stat_order: tuple[str, ...]

    def number(self, name: str) -> int | None:
        """The number of a system call, None where the architecture does not have it."""
        return self.numbers.get(name)


_STAT_HEAD_X86 = ("dev", "ino", "nlink", "mode", "uid", "gid", "rdev", "size", "blksize", "blocks")
_STAT_HEAD_ARM = ("dev", "ino", "mode", "nlink", "uid", "gid", "rdev", "size", "blksize", "blocks")

X86_64 = Arch(
    name="x86_64",
    audit=0xC000_003E,
    numbers=MappingProxyType(
        {
            "read": 0,
            "write": 1,
            "close": 3,
            "open": 2,
            "stat": 4,
            "fstat": 5,
            "lstat": 6,
            "poll": 7,
            "lseek": 8,
            "mmap": 9,
            "ioctl": 16,
            "pread64": 17,
            "pwrite64": 18,
            "readv": 19,
            "writev": 20,
            "access": 21,
            "select": 23,
            "dup": 32,
            "fcntl": 72,
            "ftruncate": 77,
            "readlink": 89,
            "epoll_ctl": 233,
            "openat": 257,
            "newfstatat": 262,
            "readlinkat": 267,
            "faccessat": 269,
            "pselect6": 270,
            "ppoll": 271,
            "fallocate": 285,
            "preadv": 295,
            "pwritev": 296,
            "preadv2": 327,
            "pwritev2": 328,
            "statx": 332,
            "openat2": 437,
            "faccessat2": 439,
        }
    ),
    seccomp=317,
    tkill=200,
    o_largefile=0o100000,
    stat=struct.Struct("<QQQIII4xQqqq6Q24x"),
    stat_order=_STAT_HEAD_X86,
)

AARCH64 = Arch(
    name="aarch64",
    audit=0xC000_00B7,
    numbers=MappingProxyType(
        {
            "epoll_ctl": 21,
            "dup": 23,
            "fcntl": 25,
            "ioctl": 29,
            "ftruncate": 46,
            "fallocate": 47,
            "faccessat": 48,
            "openat": 56,
            "close": 57,
            "lseek": 62,
            "read": 63,
            "write": 64,
            "readv": 65,
            "writev": 66,
            "pread64": 67,
            "pwrite64": 68,
            "preadv": 69,
            "pwritev": 70,
            "pselect6": 72,
            "ppoll": 73,
            "readlinkat": 78,
            "newfstatat": 79,
            "fstat": 80,
            "mmap": 222,
            "preadv2": 286,
            "pwritev2": 287,
            "statx": 291,
            "openat2": 437,
            "faccessat2": 439,
        }
    ),
    seccomp=277,
    tkill=130,
    o_largefile=0o400000,
    stat=struct.Struct("<QQIIIIQ8xqi4xq6Q8x"),
    stat_order=_STAT_HEAD_ARM,
)

ARCHES = (X86_64, AARCH64)


def native() -> Arch:
    """The architecture of this machine. Raises DeviceError where nothing can be served."""
    machine = os.uname().machine
    for arch in ARCHES:
        if arch.name == machine:
            return arch
    names = ", ".join(arch.name for arch in ARCHES)
    raise DeviceError(f"device nodes are served to programs on {names}, not on {machine}")
