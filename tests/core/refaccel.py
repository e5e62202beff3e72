# SPDX-License-Identifier: Apache-2.0
"""A minimal accel driver like the one that was measured on a real kernel, and short ways to call it."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_uint32, c_uint64

import pytest

from npubox.core.drm.device import DrmDevice, Minors
from npubox.core.drm.driver import DrmDriver, Feature, ioctl
from npubox.core.drm.file import DrmFile
from npubox.core.drm.gem import GemObject, create_handle
from npubox.core.node import Node
from npubox.core.usermem import UserMemory
from npubox.uapi.drm import Flag
from npubox.uapi.ioctl import Ioctl, StructT, iow, iowr


class CreateBo(ctypes.Structure):
    _fields_ = (("size", c_uint64), ("handle", c_uint32), ("pad", c_uint32), ("offset", c_uint64))


class Word(ctypes.Structure):
    _fields_ = (("value", c_uint64),)


CREATE_BO = iowr("REFACCEL_CREATE_BO", "d", 0x40, CreateBo)
ROOT_ONLY = iowr("REFACCEL_ROOT_ONLY", "d", 0x42, Word)
FAIL_LATE = iowr("REFACCEL_FAIL_LATE", "d", 0x43, Word)
NESTED = iow("REFACCEL_NESTED", "d", 0x44, Word)


class RefAccel(DrmDriver):
    name = "refaccel"
    desc = "reference accel"
    version = (1, 2, 3)
    features = Feature.COMPUTE_ACCEL | Feature.GEM
    shows_fdinfo = True

    def __init__(self) -> None:
        self.closed: list[tuple[int, int]] = []
        self.released = False

    def postclose(self, file: DrmFile) -> None:
        self.closed.append((file.client_id, len(file.handles)))

    def release(self) -> None:
        self.released = True

    @ioctl(CREATE_BO)
    def create_bo(self, file: DrmFile, args: CreateBo, memory: UserMemory) -> None:
        item = GemObject(self.device, args.size)
        args.handle = create_handle(file, item)
        args.offset = item.offset
        item.put()

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
