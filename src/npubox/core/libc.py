# SPDX-License-Identifier: Apache-2.0
"""The few libc calls that Python does not wrap, with their prototypes."""

from __future__ import annotations

import ctypes
import os
import struct
from ctypes import c_char, c_int, c_int64, c_size_t, c_ssize_t, c_ulong, c_void_p


class IoVec(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", c_void_p), ("length", c_size_t))


_libc = ctypes.CDLL(None, use_errno=True)
# These copies take a microsecond; giving up the GIL for them lets a busy thread keep it for much longer.
_quick = ctypes.PyDLL(None, use_errno=True)

_vm_arguments = (c_int, ctypes.POINTER(IoVec), c_ulong, ctypes.POINTER(IoVec), c_ulong, c_ulong)
_process_vm_readv = _quick.process_vm_readv
_process_vm_readv.argtypes = _vm_arguments
_process_vm_readv.restype = c_ssize_t
_process_vm_writev = _quick.process_vm_writev
_process_vm_writev.argtypes = _vm_arguments
_process_vm_writev.restype = c_ssize_t

# The same for `Window`, which needs no errno, passes C values only, and copies less than an int can count:
# ctypes takes a third less time for a call that it need not check.
_plain = ctypes.PyDLL(None)
_window_read, _window_write = _plain.process_vm_readv, _plain.process_vm_writev
_pack_vectors = struct.Struct("@QQQQ").pack_into

_fallocate = _libc.fallocate64 if hasattr(_libc, "fallocate64") else _libc.fallocate
_fallocate.argtypes = (c_int, c_int, c_int64, c_int64)
_fallocate.restype = c_int

_file_arguments = (c_int, c_void_p, c_size_t, c_int64)
_pread = _libc.pread64 if hasattr(_libc, "pread64") else _libc.pread
_pread.argtypes = _file_arguments
_pread.restype = c_ssize_t
_pwrite = _libc.pwrite64 if hasattr(_libc, "pwrite64") else _libc.pwrite
_pwrite.argtypes = _file_arguments
_pwrite.restype = c_ssize_t

FALLOC_FL_KEEP_SIZE = 1
FALLOC_FL_PUNCH_HOLE = 2


def _last_error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def process_vm_read(pid: int, address: int, buffer: ctypes.Array[c_char]) -> int:
    """Fill `buffer` from `address` in process `pid`; the bytes read, which may be fewer; OSError."""
    local = IoVec(ctypes.addressof(buffer), len(buffer))
    remote = IoVec(address, len(buffer))
    done = int(_process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0))
    if done < 0:
        raise _last_error("process_vm_readv")
    return done


def process_vm_write(pid: int, address: int, buffer: ctypes.Array[c_char]) -> int:
    """Copy `buffer` to `address` in process `pid`; the bytes written, which may be fewer; OSError."""
    local = IoVec(ctypes.addressof(buffer), len(buffer))
    remote = IoVec(address, len(buffer))
    done = int(_process_vm_writev(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0))
    if done < 0:
        raise _last_error("process_vm_writev")
    return done


class Window:
    """Small copies from and to other processes, as fast as ctypes allows. For one thread."""

    SIZE = 4096

    def __init__(self) -> None:
        self._buffer = ctypes.create_string_buffer(self.SIZE)
        self._view = memoryview(self._buffer).cast("B")
        self._place = ctypes.addressof(self._buffer)
        self._vectors = (IoVec * 2)()
        self._raw = memoryview(self._vectors).cast("B")
        local, one = ctypes.addressof(self._vectors), c_ulong(1)
        remote = local + ctypes.sizeof(IoVec)
        self._arguments = c_void_p(local), one, c_void_p(remote), one, c_ulong(0)

    def read(self, pid: int, address: int, size: int) -> bytes | None:
        """`size` bytes, at most SIZE; None where not all can be read."""
        if not self._aim(address, size) or _window_read(pid, *self._arguments) != size:
            return None
        return self._view[:size].tobytes()

    def write(self, pid: int, address: int, data: bytes) -> bool:
        """Copy out at most SIZE bytes; False where not all can be written."""
        size = len(data)
        self._view[:size] = data
        return self._aim(address, size) and bool(_window_write(pid, *self._arguments) == size)

    def _aim(self, address: int, size: int) -> bool:
        """False for an address that no process has."""
        try:
            _pack_vectors(self._raw, 0, self._place, size, address, size)
        except struct.error:
            return False
        return True


def file_from_memory(fd: int, address: int, size: int) -> int:
    """pwrite(2) at offset 0 from a raw address of this process; the bytes written; OSError."""
    done = int(_pwrite(fd, address, size, 0))
    if done < 0:
        raise _last_error("pwrite")
    return done


def memory_from_file(fd: int, address: int, size: int) -> int:
    """pread(2) at offset 0 to a raw address of this process; the bytes read; OSError."""
    done = int(_pread(fd, address, size, 0))
    if done < 0:
        raise _last_error("pread")
    return done


def punch_hole(fd: int, offset: int, size: int) -> None:
    """Give the pages of a file range back; they read as zero from then on. Raises OSError."""
    if _fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, offset, size) < 0:
        raise _last_error("fallocate(PUNCH_HOLE)")
