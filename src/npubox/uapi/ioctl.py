# SPDX-License-Identifier: Apache-2.0
"""How Linux encodes an ioctl: `dir << 30 | size << 16 | type << 8 | nr` (asm-generic/ioctl.h)."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from enum import IntFlag
from typing import Generic, TypeVar

NUMBER_MASK = 0xFFFF_FFFF
SIZE_MASK = 0x3FFF

StructT = TypeVar("StructT", bound=ctypes.Structure)


class Dir(IntFlag):
    """Direction bits, named as the caller sees them: WRITE = the kernel reads the argument."""

    NONE = 0
    WRITE = 1
    READ = 2


def encode(direction: Dir, type_: str, nr: int, size: int) -> int:
    """The ioctl number; raises ValueError where a field does not fit."""
    if not 0 <= nr <= 0xFF or not 0 <= size <= SIZE_MASK or len(type_) != 1:
        raise ValueError(f"no ioctl number has type {type_!r}, nr {nr:#x} and size {size}")
    return direction << 30 | size << 16 | ord(type_) << 8 | nr


def ioc_dir(number: int) -> Dir:
    return Dir(number >> 30 & 3)


def ioc_size(number: int) -> int:
    return number >> 16 & SIZE_MASK


def ioc_type(number: int) -> str:
    return chr(number >> 8 & 0xFF)


def ioc_nr(number: int) -> int:
    return number & 0xFF


class Empty(ctypes.Structure):
    """The argument of an ioctl that has none: zero bytes."""

    _fields_ = ()


@dataclass(frozen=True)
class Ioctl(Generic[StructT]):
    """One ioctl of a header: its name there, its number and the struct it takes.

    It may stand wherever an ioctl number is expected: `fcntl.ioctl(fd, VERSION, args)`.
    """

    name: str
    number: int
    struct: type[StructT]

    def __index__(self) -> int:
        return self.number


def io(name: str, type_: str, nr: int) -> Ioctl[Empty]:
    return Ioctl(name, encode(Dir.NONE, type_, nr, 0), Empty)


def iow(name: str, type_: str, nr: int, struct: type[StructT]) -> Ioctl[StructT]:
    return Ioctl(name, encode(Dir.WRITE, type_, nr, ctypes.sizeof(struct)), struct)


def ior(name: str, type_: str, nr: int, struct: type[StructT]) -> Ioctl[StructT]:
    return Ioctl(name, encode(Dir.READ, type_, nr, ctypes.sizeof(struct)), struct)


def iowr(name: str, type_: str, nr: int, struct: type[StructT]) -> Ioctl[StructT]:
    return Ioctl(name, encode(Dir.READ | Dir.WRITE, type_, nr, ctypes.sizeof(struct)), struct)
