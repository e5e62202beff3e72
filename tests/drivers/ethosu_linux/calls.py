# SPDX-License-Identifier: Apache-2.0
"""Calls of Arm's ABI as the tests of its driver make them."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import pytest

from npubox.core.file import Backing, OpenFile
from npubox.drivers.misc.ethosu.drv import EthosuDevice
from npubox.uapi import ethosu_linux as uapi
from npubox.uapi.ioctl import Ioctl
from tests.drivers.ethosu_linux.fake_subsystem import FakeSubsystem, Program

Plugged = tuple[FakeSubsystem, EthosuDevice]
"""Of the fixture `subsystem`."""


def buffer(program: Program, capacity: int, content: bytes = b"") -> int:
    fd = program.make(program.device, uapi.BUFFER_CREATE, capacity=capacity)
    if content:
        pages(program, fd)[: len(content)] = content
        program.call(fd, uapi.BUFFER_SET, offset=0, size=len(content))
    return fd


def pages(program: Program, fd: int) -> mmap.mmap:
    backing = program.files.files[fd].mmap(1, mmap.PROT_READ, mmap.MAP_SHARED, 0, program.caller)
    return mmap.mmap(backing.fd, mmap.PAGESIZE, offset=backing.offset)


def mapped(program: Program, file: OpenFile, length: int, offset: int) -> Backing:
    return file.mmap(length, mmap.PROT_READ, mmap.MAP_SHARED, offset, program.caller)


def window(program: Program, fd: int) -> tuple[int, int]:
    args, _ = program.call(fd, uapi.BUFFER_GET)
    return args.offset, args.size


def network(program: Program) -> int:
    model = buffer(program, 8, b"model")
    fd = program.make(program.device, uapi.NETWORK_CREATE, type=uapi.NetworkType.BUFFER, fd=model)
    program.close(model)
    return fd


def infer(
    program: Program,
    fd: int,
    inputs: list[int],
    outputs: list[int],
    declared: Ioctl[Any] = uapi.INFERENCE_CREATE,
) -> int:
    """INFERENCE_CREATE with garbage in what the counts leave out."""
    args = declared.struct(ifm_count=len(inputs), ofm_count=len(outputs))
    args.ifm_fd[:] = [*inputs, *[0xDEADBEEF] * (uapi.FD_MAX - len(inputs))]
    args.ofm_fd[:] = [*outputs, *[0xDEADBEEF] * (uapi.FD_MAX - len(outputs))]
    return program.ioctl(fd, declared.number, ctypes.addressof(args))


def status(program: Program, fd: int) -> uapi.Status:
    args, _ = program.call(fd, uapi.INFERENCE_STATUS)
    return uapi.Status(args.status)


def errno_of(call: Any, *args: Any, **fields: Any) -> int | None:
    with pytest.raises(OSError) as raised:  # noqa: PT011 - its errno is what is looked at
        call(*args, **fields)
    return raised.value.errno
