# SPDX-License-Identifier: Apache-2.0
"""The seccomp filter of a launch: which system calls the supervisor hears of.

A filter is a decision list per system call, made from a launch profile. It sees numbers and flags but
no memory, so what a path or a struct decides is decided by the supervisor, at 9 µs a call that is not
ours. Source: the project's facts (device-nodes.md §4).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from npubox.serve.syscalls import Arch

ALLOW = 0x7FFF_0000
NOTIFY = 0x7FC0_0000
ALL_BITS = 0xFFFF_FFFF
X32_BIT = 0x4000_0000

_LOAD, _JUMP_EQUAL, _JUMP_GREATER, _AND, _RETURN = 0x20, 0x15, 0x25, 0x54, 0x06
_NR_OFFSET, _ARCH_OFFSET, _ARGS_OFFSET = 0, 4, 16
_INSTRUCTION = struct.Struct("<HBBI")
LONGEST = 4096

O_WRONLY, O_RDWR, O_CREAT, O_EXCL, O_NONBLOCK = 0o1, 0o2, 0o100, 0o200, 0o4000
AT_EMPTY_PATH = 0x1000
MAP_SHARED, MAP_ANONYMOUS = 0x01, 0x20
FIONREAD, TERMINAL = 0x541B, ord("T")
F_DUPFD, F_GETFL, F_DUPFD_CLOEXEC = 0, 3, 1030
LOWEST_NUMBER, HIGHEST_NUMBER = 512, 1023
"""The descriptor numbers of served files, so that the filter can tell them from nearly all others; select(2)
still takes them."""
POLLED_FDS = 8
READS = ("read", "readv", "pread64", "preadv", "preadv2")
WRITES = ("write", "writev", "pwrite64", "pwritev", "pwritev2")


@dataclass(frozen=True)
class Profile:
    """What a launch wants to hear of beyond what every launch needs.

    `ioctl_types` are the type bytes of the served drivers. `paths` is for a launch without a mount
    namespace (every open, stat, access and readlink); `path_stat` for one that cannot make device nodes;
    `all_opens` also catches read-only opens with other flags than O_NONBLOCK; `files` every ioctl and what
    else is done to files of any number, not only of those that served files are given, and readlink.
    """

    ioctl_types: tuple[int, ...]
    paths: bool = False
    path_stat: bool = False
    all_opens: bool = False
    files: bool = False


@dataclass(frozen=True)
class Step:
    """If `argument & mask` is `value` (or, with `at_most`, no more than it; with `other`, not it): `action`.

    `high` takes the upper half of the 64-bit argument.
    """

    argument: int
    mask: int
    value: int
    action: int
    high: bool = False
    at_most: bool = False
    other: bool = False


@dataclass(frozen=True)
class Rule:
    """One system call: the first step that applies decides, else `otherwise`."""

    syscall: str
    steps: tuple[Step, ...] = ()
    otherwise: int = NOTIFY


def rules(profile: Profile, arch: Arch) -> Iterator[Rule]:
    """The decision lists of a profile."""
    yield _on_files(
        "ioctl",
        profile,
        Step(1, ALL_BITS, FIONREAD, NOTIFY),
        Step(1, 0xFF00, TERMINAL << 8, ALLOW),
        *(Step(1, 0xFF00, type_ << 8, NOTIFY) for type_ in profile.ioctl_types),
    )
    for name, flags in (("openat", 2), ("open", 1)):
        yield _open(name, flags, profile, arch)
    yield Rule("openat2")
    yield Rule(
        "mmap",
        (
            Step(3, MAP_ANONYMOUS, MAP_ANONYMOUS, ALLOW),
            Step(3, MAP_SHARED, MAP_SHARED, NOTIFY),
            *(() if profile.files else (Step(5, ALL_BITS, 0, NOTIFY, high=True, other=True), *_window(4))),
        ),
        NOTIFY if profile.files else ALLOW,
    )
    yield Rule("ftruncate")
    yield Rule("fallocate")
    path_stat = profile.paths or profile.path_stat
    for name, flags in (("newfstatat", 3), ("statx", 2)):
        by_path = Step(flags, AT_EMPTY_PATH, 0, ALLOW)
        yield Rule(name) if path_stat else _on_files(name, profile, by_path)
    if path_stat:
        yield from map(Rule, ("stat", "lstat"))
    if profile.paths:
        yield from map(Rule, ("access", "faccessat", "faccessat2"))
    if profile.paths or profile.files:
        yield from map(Rule, ("readlink", "readlinkat"))
    for name in ("poll", "ppoll"):
        few = Step(1, ALL_BITS, POLLED_FDS, NOTIFY, at_most=True)
        yield Rule(name, (Step(1, ALL_BITS, 0, ALLOW), few), ALLOW)
    for name in ("select", "pselect6"):
        least = 0 if profile.files else LOWEST_NUMBER  # the first argument is the highest number and one
        yield Rule(name, (Step(0, ALL_BITS, least, ALLOW, at_most=True),))
    for name in ("fstat", *READS, *WRITES, "lseek"):
        yield _on_files(name, profile)
    yield _on_files("epoll_ctl", profile, argument=2)
    get_flags = Step(1, ALL_BITS, F_GETFL, NOTIFY)
    if profile.files:
        yield Rule("fcntl", (get_flags,), ALLOW)
    else:
        yield _on_files("dup", profile)
        duplicates = (Step(1, ALL_BITS, command, NOTIFY) for command in (F_DUPFD, F_DUPFD_CLOEXEC))
        yield Rule("fcntl", (_BELOW, get_flags, *duplicates), ALLOW)


_BELOW = Step(0, ALL_BITS, LOWEST_NUMBER - 1, ALLOW, at_most=True)


def _on_files(name: str, profile: Profile, *first: Step, argument: int = 0) -> Rule:
    """A call on the descriptor `argument`: of those numbers that served files have, or of any."""
    if profile.files:
        return Rule(name, first)
    return Rule(name, (*first, *_window(argument)), ALLOW)


def _window(argument: int) -> Iterator[Step]:
    for last, action in ((LOWEST_NUMBER - 1, ALLOW), (HIGHEST_NUMBER, NOTIFY)):
        yield Step(argument, ALL_BITS, last, action, at_most=True)


def _open(name: str, flags: int, profile: Profile, arch: Arch) -> Rule:
    if profile.paths or profile.all_opens:
        return Rule(name)
    # Read-only opens are what programs do all day, nearly always with O_CLOEXEC, O_NOCTTY or O_DIRECTORY.
    bare = ALL_BITS & ~(O_NONBLOCK | arch.o_largefile)
    return Rule(
        name,
        (
            Step(flags, O_CREAT | O_EXCL, O_CREAT | O_EXCL, ALLOW),  # EEXIST for what exists, as nodes do
            Step(flags, O_RDWR, O_RDWR, NOTIFY),
            Step(flags, O_CREAT, O_CREAT, ALLOW),
            Step(flags, O_WRONLY, O_WRONLY, NOTIFY),
            Step(flags, bare, 0, NOTIFY),
        ),
        ALLOW,
    )


def assemble(profile: Profile, arch: Arch) -> bytes:
    """The filter as an array of struct sock_filter. Calls of another architecture or of x32 pass."""
    blocks = []
    for rule in rules(profile, arch):
        number = arch.number(rule.syscall)
        if number is not None:
            blocks.append(_block(number, rule))
    code = [
        _INSTRUCTION.pack(_LOAD, 0, 0, _ARCH_OFFSET),
        _INSTRUCTION.pack(_JUMP_EQUAL, 1, 0, arch.audit),
        _INSTRUCTION.pack(_RETURN, 0, 0, ALLOW),
        _INSTRUCTION.pack(_LOAD, 0, 0, _NR_OFFSET),
        _INSTRUCTION.pack(_JUMP_GREATER, 0, 1, X32_BIT - 1),
        _INSTRUCTION.pack(_RETURN, 0, 0, ALLOW),
        *(instruction for block in blocks for instruction in block),
        _INSTRUCTION.pack(_RETURN, 0, 0, ALLOW),
    ]
    if len(code) > LONGEST:
        raise ValueError(f"a filter of {len(code)} instructions: the kernel takes {LONGEST}")
    return b"".join(code)


def _block(number: int, rule: Rule) -> list[bytes]:
    """Falls through to the next block, with the number still loaded, for another system call."""
    body: list[bytes] = []
    for step in rule.steps:
        offset = _ARGS_OFFSET + 8 * step.argument + (4 if step.high else 0)
        body.append(_INSTRUCTION.pack(_LOAD, 0, 0, offset))
        if step.mask != ALL_BITS:
            body.append(_INSTRUCTION.pack(_AND, 0, 0, step.mask))
        if step.at_most:
            body.append(_INSTRUCTION.pack(_JUMP_GREATER, 1, 0, step.value))
        else:
            body.append(_INSTRUCTION.pack(_JUMP_EQUAL, int(step.other), int(not step.other), step.value))
        body.append(_INSTRUCTION.pack(_RETURN, 0, 0, step.action))
    body.append(_INSTRUCTION.pack(_RETURN, 0, 0, rule.otherwise))
    return [_INSTRUCTION.pack(_JUMP_EQUAL, 0, len(body), number), *body]
