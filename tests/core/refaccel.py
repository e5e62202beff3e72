# SPDX-License-Identifier: Apache-2.0
"""The reference driver with ioctls more that only tests need, and short ways to call it."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_uint64

import pytest

from npubox.core.drm.device import DrmDevice, Minors
from npubox.core.drm.driver import ioctl
from npubox.core.drm.file import DrmFile
from npubox.core.node import Node
from npubox.core.usermem import UserMemory
from npubox.drivers.accel.refaccel import drv
from npubox.uapi.drm import Flag
from npubox.uapi.ioctl import Ioctl, StructT, iow, iowr
from npubox.uapi.refaccel import CREATE_BO, CreateBo


class Word(ctypes.Structure):
    _fields_ = (("value", c_uint64),)


ROOT_ONLY = iowr("REFACCEL_ROOT_ONLY", "d", 0x42, Word)
FAIL_LATE = iowr("REFACCEL_FAIL_LATE", "d", 0x43, Word)
NESTED = iow("REFACCEL_NESTED", "d", 0x44, Word)


class RefAccel(drv.RefAccel):
    def __init__(self) -> None:
        self.closed: list[tuple[int, int]] = []
        self.released = False

    def postclose(self, file: DrmFile) -> None:
        self.closed.append((file.client_id, len(file.handles)))

    def release(self) -> None:
        self.released = True

    @ioctl(ROOT_ONLY, Flag.ROOT_ONLY)
    def root_only(self, file: DrmFile, args: Word, memory: UserMemory) -> int:
        return 7

    @ioctl(FAIL_LATE)
    def fail_late(self, file: DrmFile, args: Word, memory: UserMemory) -> None:
        args.value += 1
        raise OSError(errno.EIO, "as told")

    @ioctl(NESTED)
    def nested(self, file: DrmFile, args: Word, memory: UserMemory) -> None:
        memory.write(args.value, memory.read(args.value, 8)[::-1])


def make_device(minors: Minors | None = None) -> DrmDevice:
    device = DrmDevice(RefAccel(), "refaccel.0", minors=minors or Minors())
    device.register()
    return device


def driver_of(device: DrmDevice) -> RefAccel:
    assert isinstance(device.driver, RefAccel)
    return device.driver


def call(node: Node, declaration: Ioctl[StructT], **fields: object) -> StructT:
    """One ioctl on a fresh struct with these fields; the struct as it came back."""
    args = declaration.struct(**fields)
    node.ioctl(declaration, ctypes.addressof(args))
    return args


def create(node: Node, size: int) -> CreateBo:
    return call(node, CREATE_BO, size=size)


def raw(node: Node, number: int, argument: ctypes.Array[ctypes.c_char] | None) -> int:
    return node.ioctl(number, ctypes.addressof(argument) if argument is not None else 0)


@contextmanager
def fails(error: int) -> Iterator[None]:
    """The block raises OSError with this errno."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is checked below
        yield
    assert caught.value.errno == error, f"{errno.errorcode.get(caught.value.errno or 0)}: {caught.value}"


def open_node(device: DrmDevice, flags: int = os.O_RDWR, *, root: bool = True) -> Node:
    return Node.open(device, flags, sys_admin=root)
