# SPDX-License-Identifier: Apache-2.0
"""The chip's memories, and copies between anything that is mapped into this process."""

from __future__ import annotations

import ctypes
import mmap
import os
from dataclasses import dataclass
from typing import NamedTuple

from npubox.bus.port import BarArea
from npubox.hw.neuron.address import CORE_WINDOW_SIZE, CORES, DRAM_CHANNEL_SIZE, DRAM_CHANNELS

LARGE = 16 << 10
"""Copies from this size on let go of the interpreter's lock."""


class Memory(NamedTuple):
    """`size` bytes at `pointer` of this process. Hold it while using the pointer: `owner` keeps it mapped."""

    pointer: int
    size: int
    owner: object


def _memmove(library: ctypes.CDLL) -> ctypes._NamedFuncPointer:
    function = library.memmove
    function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    function.restype = None
    return function


_move_small = _memmove(ctypes.PyDLL(None))
_move_large = _memmove(ctypes.CDLL(None))


def move(to: int, source: int, size: int) -> None:
    """memmove(3) between pointers whose ranges have been checked."""
    (_move_large if size >= LARGE else _move_small)(to, source, size)


def _sparse(size: int) -> mmap.mmap:
    fd = os.memfd_create("npubox-neuron-windows", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, size)
        return mmap.mmap(fd, size, mmap.MAP_SHARED)
    finally:
        os.close(fd)


def pointer_to(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


@dataclass(frozen=True)
class DramFile:
    """Where the DRAM's bytes are: file `fd`, each channel of 4 GiB from its offset on."""

    fd: int
    offsets: tuple[int, ...] = tuple(channel * DRAM_CHANNEL_SIZE for channel in range(DRAM_CHANNELS))

    @classmethod
    def anonymous(cls) -> DramFile:
        """A sparse file of its own; whoever makes it closes `fd`. Raises OSError."""
        fd = os.memfd_create("npubox-neuron-dram", os.MFD_CLOEXEC)
        os.ftruncate(fd, DRAM_CHANNELS * DRAM_CHANNEL_SIZE)
        return cls(fd)

    def areas(self) -> tuple[BarArea, ...]:
        """The DRAM BAR: one area where the channels lie in the file as in the BAR, else one a channel."""
        if all(
            offset - self.offsets[0] == channel * DRAM_CHANNEL_SIZE
            for channel, offset in enumerate(self.offsets)
        ):
            return (BarArea(0, DRAM_CHANNELS * DRAM_CHANNEL_SIZE, self.fd, self.offsets[0]),)
        return tuple(
            BarArea(channel * DRAM_CHANNEL_SIZE, DRAM_CHANNEL_SIZE, self.fd, offset)
            for channel, offset in enumerate(self.offsets)
        )


class LocalMemory:
    """The DRAM channels and the memory of the core windows, mapped; no page is used before it is written."""

    def __init__(self, dram: DramFile) -> None:
        self._channels = [
            mmap.mmap(dram.fd, DRAM_CHANNEL_SIZE, mmap.MAP_SHARED, offset=offset) for offset in dram.offsets
        ]
        self._windows = _sparse(CORES * CORE_WINDOW_SIZE)
        self._channel_pointers = [pointer_to(channel) for channel in self._channels]
        self._window_pointer = pointer_to(self._windows)

    def dram(self, channel: int, offset: int, size: int) -> Memory:
        """At most `size` bytes of a channel from `offset` on; fewer at its end."""
        pointer = self._channel_pointers[channel] + offset
        return Memory(pointer, min(size, DRAM_CHANNEL_SIZE - offset), self)

    def windows(self, offset: int, size: int) -> Memory:
        """The bytes behind the core windows; `offset` counts from the first window."""
        return Memory(self._window_pointer + offset, size, self)
