# SPDX-License-Identifier: Apache-2.0
"""User memory: how a handler reaches a pointer that the caller passed, whichever way the call came.

No handler dereferences such a pointer. A bad one is EFAULT and never a crash, in process too.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from typing import BinaryIO, Protocol

from npubox.core import libc
from npubox.core.ranges import PAGE_SIZE

ADDRESS_END = 1 << 64
CHUNK = 1 << 20
LONGEST_PATH = 4096
FORBIDDEN = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS})

Buffer = ctypes.Array[ctypes.c_char]

_of_thread = threading.local()


class UserMemory(Protocol):
    """The memory of whoever made the call."""

    def read(self, address: int, size: int) -> bytes:
        """Copy in exactly `size` bytes; OSError EFAULT where not all can be read."""

    def write(self, address: int, data: bytes) -> None:
        """Copy out all of `data`; OSError EFAULT where not all can be written."""


class ProcessMemory:
    """User memory of a process by its id.

    process_vm_readv and process_vm_writev respect page protections, as a driver's copies do;
    /proc/PID/mem does not.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def read(self, address: int, size: int) -> bytes:
        _check(address, size)
        pieces: list[bytes] = []
        for start in range(0, size, CHUNK):
            buffer = ctypes.create_string_buffer(min(CHUNK, size - start))
            if self._read(address + start, buffer) != len(buffer):
                raise _fault("read", address, size)
            pieces.append(buffer.raw)
        return b"".join(pieces)

    def write(self, address: int, data: bytes) -> None:
        _check(address, len(data))
        for start in range(0, len(data), CHUNK):
            piece = data[start : start + CHUNK]
            if self._write(address + start, ctypes.create_string_buffer(piece, len(piece))) != len(piece):
                raise _fault("written", address, len(data))

    def read_string(self, address: int) -> bytes:
        """A string without its NUL; ENAMETOOLONG for one longer than a path can be."""
        text = b""
        while len(text) < LONGEST_PATH:
            piece = self.read(address + len(text), PAGE_SIZE - (address + len(text)) % PAGE_SIZE)
            end = piece.find(0)
            if end >= 0:
                return text + piece[:end]
            text += piece
        raise OSError(errno.ENAMETOOLONG, f"the string at {address:#x} has no end")

    def _read(self, address: int, buffer: Buffer) -> int:
        return libc.process_vm_read(self._pid, address, buffer)

    def _write(self, address: int, buffer: Buffer) -> int:
        return libc.process_vm_write(self._pid, address, buffer)


class OwnMemory(ProcessMemory):
    """Our own memory. Where a sandbox forbids process_vm_readv it goes through a file, to the same effect."""

    def __init__(self) -> None:
        super().__init__(os.getpid())

    def read(self, address: int, size: int) -> bytes:
        if size <= libc.Window.SIZE and 0 <= address < ADDRESS_END - size:
            data = _window().read(self._pid, address, size)
            if data is not None:
                return data
        return super().read(address, size)

    def write(self, address: int, data: bytes) -> None:
        small = len(data) <= libc.Window.SIZE and 0 <= address < ADDRESS_END - len(data)
        if not small or not _window().write(self._pid, address, data):
            super().write(address, data)

    def _read(self, address: int, buffer: Buffer) -> int:
        try:
            return super()._read(address, buffer)
        except OSError as error:
            if error.errno not in FORBIDDEN:
                raise
        with _scratch_file() as file:
            done = libc.file_from_memory(file.fileno(), address, len(buffer))
            return libc.memory_from_file(file.fileno(), ctypes.addressof(buffer), done)

    def _write(self, address: int, buffer: Buffer) -> int:
        try:
            return super()._write(address, buffer)
        except OSError as error:
            if error.errno not in FORBIDDEN:
                raise
        with _scratch_file() as file:
            done = libc.file_from_memory(file.fileno(), ctypes.addressof(buffer), len(buffer))
            return libc.memory_from_file(file.fileno(), address, done)


def _window() -> libc.Window:
    """The calling thread's."""
    window: libc.Window | None = getattr(_of_thread, "window", None)
    if window is None:
        window = _of_thread.window = libc.Window()
    return window


def _scratch_file() -> BinaryIO:
    return open(os.memfd_create("npubox-user-memory", os.MFD_CLOEXEC), "r+b", buffering=0)


def _check(address: int, size: int) -> None:
    if address < 0 or address + size > ADDRESS_END:
        raise _fault("addressed", address, size)


def _fault(what: str, address: int, size: int) -> OSError:
    return OSError(errno.EFAULT, f"{size} bytes of user memory at {address:#x} cannot be {what}")


def read_string(memory: UserMemory, address: int, limit: int) -> bytes:
    """A string without its NUL, which must be among the first `limit` bytes; OSError EINVAL, EFAULT."""
    data = b""
    while len(data) < limit:
        piece = min(limit - len(data), PAGE_SIZE - (address + len(data)) % PAGE_SIZE)
        data += memory.read(address + len(data), piece)
        if b"\0" in data:
            return data[: data.index(b"\0")]
    raise OSError(errno.EINVAL, f"a string of more than {limit - 1} bytes")
