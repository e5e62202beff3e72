# SPDX-License-Identifier: Apache-2.0
"""User memory: how a handler reaches a pointer that the caller passed, whichever way the call came.

No handler dereferences such a pointer. A bad one is EFAULT and never a crash, in process too.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Protocol

from npubox.core import libc

ADDRESS_END = 1 << 64
CHUNK = 1 << 20


class UserMemory(Protocol):
    """The memory of whoever made the call."""

    def read(self, address: int, size: int) -> bytes:
        """Copy in exactly `size` bytes; OSError EFAULT where not all can be read."""

    def write(self, address: int, data: bytes) -> None:
        """Copy out all of `data`; OSError EFAULT where not all can be written."""


class ProcessMemory:
    """User memory of a process, by default our own.

    process_vm_readv and process_vm_writev respect page protections, as a driver's copies do;
    /proc/PID/mem does not.
    """

    def __init__(self, pid: int | None = None) -> None:
        self._pid = pid

    @property
    def pid(self) -> int:
        return os.getpid() if self._pid is None else self._pid

    def read(self, address: int, size: int) -> bytes:
        self._check(address, size)
        pieces: list[bytes] = []
        for start in range(0, size, CHUNK):
            buffer = ctypes.create_string_buffer(min(CHUNK, size - start))
            if libc.process_vm_read(self.pid, address + start, buffer) != len(buffer):
                raise _fault("read", address, size)
            pieces.append(buffer.raw)
        return b"".join(pieces)

    def write(self, address: int, data: bytes) -> None:
        self._check(address, len(data))
        for start in range(0, len(data), CHUNK):
            piece = data[start : start + CHUNK]
            buffer = ctypes.create_string_buffer(piece, len(piece))
            if libc.process_vm_write(self.pid, address + start, buffer) != len(buffer):
                raise _fault("written", address, len(data))

    def _check(self, address: int, size: int) -> None:
        if address < 0 or address + size > ADDRESS_END:
            raise _fault("addressed", address, size)


def _fault(what: str, address: int, size: int) -> OSError:
    return OSError(errno.EFAULT, f"{size} bytes of user memory at {address:#x} cannot be {what}")
