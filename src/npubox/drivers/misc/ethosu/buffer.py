# SPDX-License-Identifier: Apache-2.0
"""Buffers: memory that program, host and subsystem share, and the window of it that is valid.

Source: the project's facts (ethosu-linux.md §1.4, §1.5).
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from npubox.core.caller import Caller
from npubox.core.file import Backing, PagesStandIn
from npubox.core.ranges import page_align
from npubox.core.store import allocate_pages
from npubox.drivers.misc.ethosu.file import Client, Copies, EthosuFile, command
from npubox.hw.ethosu import core_interface as core
from npubox.uapi import ethosu_linux as uapi

if TYPE_CHECKING:
    from npubox.drivers.misc.ethosu.drv import EthosuDevice


class Buffer(EthosuFile):
    """`capacity` zeroed bytes at device `address`; the bytes from `offset` on, `size` of them, are valid.

    Raises OSError EINVAL for a capacity of 0, ENOMEM where there is no room.
    """

    link = "anon_inode:ethosu-buffer"

    def __init__(self, device: EthosuDevice, client: Client, capacity: int) -> None:
        if not capacity:
            raise OSError(errno.EINVAL, "a buffer of 0 bytes is none")
        self.capacity = capacity
        self.offset = 0
        self.size = 0
        self._pages = page_align(capacity)
        self._fd = allocate_pages(self._pages)
        try:
            self.address = device.map(self._fd, self._pages)
        except OSError:
            os.close(self._fd)
            raise
        self.stand_in = PagesStandIn(self._fd, self._pages)
        super().__init__(device, client)

    def free(self) -> None:
        self.device.memory.unmap(self.address, self._pages)
        os.close(self._fd)

    def mmap(self, length: int, prot: int, flags: int, offset: int, caller: Caller) -> Backing:
        if offset + page_align(length) > self._pages:
            raise OSError(errno.ENXIO, f"a buffer of {self.capacity} bytes has no {offset}+{length}")
        return Backing(self._fd, offset)

    @command(uapi.BUFFER_SET, Copies.IN)
    def set_window(self, args: uapi.Buffer, caller: Caller) -> None:
        if args.offset + args.size > self.capacity:
            raise OSError(
                errno.EINVAL, f"{args.offset}+{args.size} does not fit into a buffer of {self.capacity} bytes"
            )
        self.offset, self.size = args.offset, args.size

    @command(uapi.BUFFER_GET, Copies.OUT_UNCHECKED)
    def get_window(self, args: uapi.Buffer, caller: Caller) -> None:
        args.offset, args.size = self.offset, self.size


@dataclass(frozen=True)
class Window:
    """A buffer as an operand: inputs are its valid bytes, outputs go behind them. As of when it is asked."""

    buffer: Buffer

    def as_input(self) -> core.Buffer:
        return core.Buffer(self.buffer.address + self.buffer.offset, self.buffer.size)

    def as_output(self) -> core.Buffer:
        end = self.buffer.offset + self.buffer.size
        return core.Buffer(self.buffer.address + end, self.buffer.capacity - end)

    def written(self, size: int) -> bool:
        """The subsystem wrote `size` bytes; False where they do not fit."""
        if self.buffer.offset + self.buffer.size + size > self.buffer.capacity:
            return False
        self.buffer.size += size
        return True


@dataclass(frozen=True)
class Range:
    """A fixed range of a buffer as an operand."""

    buffer: Buffer
    start: int
    size: int

    def as_input(self) -> core.Buffer:
        return core.Buffer(self.buffer.address + self.start, self.size)

    def as_output(self) -> core.Buffer:
        return self.as_input()

    def written(self, size: int) -> bool:
        return size <= self.size


@dataclass(frozen=True)
class Operands:
    """What an inference reads and writes; `held` are buffers that it keeps besides."""

    inputs: list[Window | Range]
    outputs: list[Window | Range]
    held: list[Buffer] = field(default_factory=list)

    @property
    def buffers(self) -> list[Buffer]:
        return [*self.held, *(operand.buffer for operand in (*self.inputs, *self.outputs))]
