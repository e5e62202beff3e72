# SPDX-License-Identifier: Apache-2.0
"""The few ptrace(2) requests that let a stopped thread make a system call of ours. x86-64 only.

Source: the project's facts (device-nodes.md §5, "Mappings made by the driver").
"""

from __future__ import annotations

import ctypes
import os
import platform
from ctypes import c_int, c_long, c_ulonglong, c_void_p

SYSCALL, SETREGS, GETREGS, DETACH, SEIZE, INTERRUPT = 24, 13, 12, 17, 0x4206, 0x4207
O_TRACESYSGOOD = 1
WALL = 0x4000_0000
SUPPORTED = platform.machine() == "x86_64"

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
