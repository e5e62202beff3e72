# SPDX-License-Identifier: Apache-2.0
"""The seccomp filter, run by a small interpreter of classic BPF: what is notified on which architecture."""

from __future__ import annotations

import struct

import pytest

from npubox.serve.bpf import ALLOW, NOTIFY, Profile, assemble
from npubox.serve.syscalls import AARCH64, ARCHES, X86_64, Arch

BASE = Profile(ioctl_types=(ord("d"),))
ARCH = pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)


def verdict(program: bytes, arch: int, number: int, *args: int) -> int:
    """What the kernel would do with a call."""
    data = struct.pack("<iIQ6Q", number, arch, 0, *args, *(0,) * (6 - len(args)))
    code = list(struct.iter_unpack("<HBBI", program))
    at = 0
    accumulator = 0
    while True:
        operation, if_true, if_false, k = code[at]
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, k)
            case 0x54:
                accumulator &= k
            case 0x15:
                at += if_true if accumulator == k else if_false
            case 0x25:
                at += if_true if accumulator > k else if_false
            case 0x06:
                return int(k)
            case _:
                raise AssertionError(f"no such instruction: {operation:#x}")


def notified(profile: Profile, arch: Arch, name: str, *args: int) -> bool:
    number = arch.number(name)
    assert number is not None
    found = verdict(assemble(profile, arch), arch.audit, number, *args)
    assert found in (ALLOW, NOTIFY)
    return found == NOTIFY


@ARCH
@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("ioctl", (3, 0xC0406400, 1), True),
        ("ioctl", (3, 0xFFFF_FFFF_C040_6400, 1), True),
        ("ioctl", (3, 0x5401, 1), False),
        ("ioctl", (3, 0x541B, 1), True),
        ("openat", (0, 1, 0), True),
        ("openat", (0, 1, 0o4000), True),
        ("openat", (0, 1, 0o2000000), False),
        ("openat", (0, 1, 0o2000002), True),
        ("openat", (0, 1, 0o101), False),
        ("openat", (0, 1, 0o102), True),
        ("openat", (0, 1, 1), True),
        ("openat2", (0, 1, 2), True),
        ("mmap", (0, 4096, 3, 0x22, -1 & (1 << 64) - 1, 0), False),
        ("mmap", (0, 4096, 3, 0x21, -1 & (1 << 64) - 1, 0), False),
        ("mmap", (0, 4096, 3, 0x01, 3, 0), True),
        ("mmap", (0, 4096, 3, 0x03, 3, 0), True),
        ("mmap", (0, 4096, 1, 0x02, 3, 4096), False),
        ("mmap", (0, 4096, 1, 0x02, 3, 1 << 32), True),
        ("mmap", (0, 4096, 1, 0x02, 1023, 4096), True),
        ("mmap", (0, 4096, 1, 0x02, 1024, 4096), False),
        ("mmap", (0, 4096, 1, 0x02, 1024, 1 << 32), True),
        ("fstat", (3, 1), False),
        ("fstat", (511, 1), False),
        ("fstat", (512, 1), True),
        ("fstat", (1023, 1), True),
        ("fstat", (1024, 1), False),
        ("fstat", (-1 & (1 << 64) - 1, 1), False),
        ("newfstatat", (3, 1, 1, 0), False),
        ("newfstatat", (1023, 1, 1, 0), False),
        ("newfstatat", (3, 1, 1, 0x1000), False),
        ("newfstatat", (1023, 1, 1, 0x1000), True),
        ("newfstatat", (-100 & (1 << 64) - 1, 1, 1, 0x1000), False),
        ("statx", (3, 1, 0x1000), False),
        ("statx", (1023, 1, 0x1000), True),
        ("ftruncate", (3, 0), True),
        ("readlinkat", (3, 0), False),
        ("read", (3, 0), False),
        ("read", (1023, 0), True),
        ("pwrite64", (3, 0), False),
        ("pwrite64", (1023, 0), True),
        ("lseek", (1023, 0), True),
        ("dup", (3,), False),
        ("dup", (1023,), True),
        ("fcntl", (3, 0), False),
        ("fcntl", (1023, 0), True),
        ("fcntl", (1023, 1), False),
        ("fcntl", (1023, 3), True),
        ("fcntl", (1023, 1030), True),
        ("epoll_ctl", (1023, 1, 3), False),
        ("epoll_ctl", (3, 1, 1023), True),
        ("ppoll", (1, 0), False),
        ("ppoll", (1, 8), True),
        ("ppoll", (1, 9), False),
        ("pselect6", (512, 1), False),
        ("pselect6", (513, 1), True),
    ],
)
def test_the_base_profile(arch: Arch, name: str, args: tuple[int, ...], expected: bool) -> None:
    assert notified(BASE, arch, name, *args) is expected


@ARCH
def test_other_profiles(arch: Arch) -> None:
    assert notified(Profile((ord("d"),), all_opens=True), arch, "openat", 0, 1, 0o2000000)
    for name in ("openat", "newfstatat", "faccessat", "readlinkat"):
        assert notified(Profile((ord("d"),), paths=True), arch, name, 0, 1, 0o2000000, 0)
    assert notified(Profile((ord("d"),), path_stat=True), arch, "newfstatat", 0, 1, 1, 0)
    assert notified(Profile((ord("d"),), files=True), arch, "pselect6", 4, 1)
    for name in ("read", "write", "lseek", "readlinkat", "pread64", "fstat"):
        assert notified(Profile((ord("d"),), files=True), arch, name, 3, 1)
    assert notified(Profile((ord("d"),), files=True), arch, "fcntl", 3, 3)
    assert not notified(Profile((ord("d"),), files=True), arch, "fcntl", 3, 4)
    assert notified(Profile((1, ord("N"))), arch, "ioctl", 3, 0x4E01)
    assert notified(Profile((1, ord("N"))), arch, "ioctl", 3, 0x0101)
    assert not notified(Profile((1, ord("N"))), arch, "ioctl", 3, 0x6401)


@ARCH
def test_foreign_calls_pass(arch: Arch) -> None:
    program = assemble(Profile((ord("d"),), paths=True, files=True), arch)
    other = AARCH64 if arch is X86_64 else X86_64
    for number in range(450):
        assert verdict(program, other.audit, number, 0, 0xC0406400, 2) == ALLOW
        assert verdict(program, arch.audit, number | 0x4000_0000, 0, 0xC0406400, 2) == ALLOW
    assert verdict(program, 0x4000_0003, 54, 3, 0xC0406400) == ALLOW  # i386
    known = set(arch.numbers.values())
    assert all(verdict(program, arch.audit, n) == ALLOW for n in range(450) if n not in known)


def test_struct_stat_sizes() -> None:
    assert (X86_64.stat.size, AARCH64.stat.size) == (144, 128)
