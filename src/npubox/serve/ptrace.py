# SPDX-License-Identifier: Apache-2.0
"""The few ptrace(2) requests that let a stopped thread make a system call of ours or tell of those it
makes, on x86-64 and aarch64.

Source: the project's facts (device-nodes.md §5, "Mappings made by the driver"); ptrace(2).
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Mapping
from ctypes import c_int, c_long, c_ulonglong, c_void_p
from typing import NamedTuple

from npubox.core import libc

SYSCALL, DETACH, GETREGSET, SETREGSET, SEIZE, INTERRUPT = 24, 17, 0x4204, 0x4205, 0x4206, 0x4207
LISTEN, GET_SYSCALL_INFO = 0x4208, 0x420E
NT_PRSTATUS = 1
NO_CALL = (1 << 64) - 1
O_TRACESYSGOOD = 1
O_FOLLOW = 2 | 4 | 8 | 16  # fork, vfork, clone, exec
EVENT_STOP = 128
SYSCALL_STOP = signal.SIGTRAP | 0x80
WALL = 0x4000_0000
_SYSCALL_INFO_SIZE = 88
_INFO_ENTRY, _INFO_EXIT = 1, 2
_INFO_HEAD, _INFO_CALL, _INFO_RESULT = struct.Struct("<B3xI16x"), struct.Struct("<7Q"), struct.Struct("<q")

_ptrace = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.argtypes = (c_long, c_int, c_void_p, c_void_p)
_ptrace.restype = c_long


class _X86Registers(ctypes.Structure):
    """struct user_regs_struct of x86-64."""

    _fields_ = tuple(
        (name, c_ulonglong)
        for name in (
            *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi"),
            *("rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base"),
            *("ds", "es", "fs", "gs"),
        )
    )

    def again(self, number: int, arguments: Mapping[int, int]) -> None:
        """Back to the `syscall` instruction that was just passed, for the call `number`."""
        self.rip -= 2
        self.rax, self.orig_rax = number, NO_CALL
        for index, value in arguments.items():
            setattr(self, ("rdi", "rsi", "rdx", "r10", "r8", "r9")[index], value)

    @property
    def result(self) -> int:
        return int(self.rax)

    def returned(self, value: int) -> None:
        self.rax, self.orig_rax = value, NO_CALL


class _ArmRegisters(ctypes.Structure):
    """struct user_pt_regs of aarch64."""

    _fields_ = (("x", c_ulonglong * 31), ("sp", c_ulonglong), ("pc", c_ulonglong), ("pstate", c_ulonglong))

    def again(self, number: int, arguments: Mapping[int, int]) -> None:
        """Back to the `svc` instruction that was just passed, for the call `number`. The first argument has
        to be among `arguments`, as its register holds the result."""
        self.pc -= 4
        self.x[8] = number
        for index, value in arguments.items():
            self.x[index] = value

    @property
    def result(self) -> int:
        return int(self.x[0])

    def returned(self, value: int) -> None:
        self.x[0] = value


Registers = _X86Registers | _ArmRegisters
_REGISTERS: dict[str, type[Registers]] = {"x86_64": _X86Registers, "aarch64": _ArmRegisters}


def request(what: int, tid: int, data: int = 0, address: int = 0) -> None:
    """OSError as ptrace(2) fails."""
    if _ptrace(what, tid, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace: {os.strerror(number)}")


def get_registers(tid: int) -> Registers:
    registers = _REGISTERS[os.uname().machine]()
    _register_set(GETREGSET, tid, registers)
    return registers


def set_registers(tid: int, registers: Registers) -> None:
    _register_set(SETREGSET, tid, registers)


def _register_set(what: int, tid: int, registers: Registers) -> None:
    vector = libc.IoVec(ctypes.addressof(registers), ctypes.sizeof(registers))
    request(what, tid, ctypes.addressof(vector), NT_PRSTATUS)


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
    request(GET_SYSCALL_INFO, tid, ctypes.addressof(buffer), _SYSCALL_INFO_SIZE)
    kind, arch = _INFO_HEAD.unpack_from(buffer)
    if kind == _INFO_ENTRY:
        number, *args = _INFO_CALL.unpack_from(buffer, _INFO_HEAD.size)
        return Entry(arch, number, tuple(args))
    if kind == _INFO_EXIT:
        return Exit(*_INFO_RESULT.unpack_from(buffer, _INFO_HEAD.size))
    return None
