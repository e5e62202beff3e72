# SPDX-License-Identifier: Apache-2.0
"""The few ptrace(2) requests that let a stopped thread make a system call of ours (x86-64 only), or tell of
those it makes.

Source: the project's facts (device-nodes.md §5, "Mappings made by the driver"); ptrace(2).
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from ctypes import c_int, c_long, c_ulonglong, c_void_p
from typing import NamedTuple

SYSCALL, SETREGS, GETREGS, DETACH, SEIZE, INTERRUPT = 24, 13, 12, 17, 0x4206, 0x4207
LISTEN, GET_SYSCALL_INFO = 0x4208, 0x420E
O_TRACESYSGOOD = 1
O_FOLLOW = 2 | 4 | 8 | 16  # fork, vfork, clone, exec
EVENT_STOP = 128
SYSCALL_STOP = signal.SIGTRAP | 0x80
WALL = 0x4000_0000
_SYSCALL_INFO_SIZE = 88
_INFO_ENTRY, _INFO_EXIT = 1, 2
_INFO_HEAD, _INFO_CALL, _INFO_RESULT = struct.Struct("<B3xI16x"), struct.Struct("<7Q"), struct.Struct("<q")
SUPPORTED = os.uname().machine == "x86_64"

_ptrace = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.argtypes = (c_long, c_int, c_void_p, c_void_p)
_ptrace.restype = c_long


class Registers(ctypes.Structure):
    """struct user_regs_struct."""

    _fields_ = tuple(
        (name, c_ulonglong)
        for name in (
            *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi"),
            *("rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base"),
            *("ds", "es", "fs", "gs"),
        )
    )


def request(what: int, tid: int, data: int = 0) -> None:
    """A request that takes a number. OSError as ptrace(2) fails."""
    if _ptrace(what, tid, None, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace: {os.strerror(number)}")


def get_registers(tid: int) -> Registers:
    registers = Registers()
    request(GETREGS, tid, ctypes.addressof(registers))
    return registers


def set_registers(tid: int, registers: Registers) -> None:
    request(SETREGS, tid, ctypes.addressof(registers))


class Entry(NamedTuple):
    """A thread is about to enter a system call."""

    arch: int
    number: int
    args: tuple[int, ...]


class Exit(NamedTuple):
    """A thread has left one: the value, or the negative errno."""

    result: int


def syscall_stop(tid: int) -> Entry | Exit | None:
    """What a thread that stopped at a system call is about; None where the kernel does not say. Linux 5.3."""
    buffer = ctypes.create_string_buffer(_SYSCALL_INFO_SIZE)
    if _ptrace(GET_SYSCALL_INFO, tid, _SYSCALL_INFO_SIZE, ctypes.addressof(buffer)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace: {os.strerror(number)}")
    kind, arch = _INFO_HEAD.unpack_from(buffer)
    if kind == _INFO_ENTRY:
        number, *args = _INFO_CALL.unpack_from(buffer, _INFO_HEAD.size)
        return Entry(arch, number, tuple(args))
    if kind == _INFO_EXIT:
        return Exit(*_INFO_RESULT.unpack_from(buffer, _INFO_HEAD.size))
    return None
