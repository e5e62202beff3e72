# SPDX-License-Identifier: Apache-2.0
"""The registers a command stream writes, read with the meaning their fields have (facts §2.2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

from npubox.hw.ethosu.commands import Cmd0, Cmd1

from .errors import Refused


@dataclass
class Config:
    """The fields of the CONFIG word that change results (facts §1.2)."""

    word: int

    @property
    def is_u65(self) -> bool:
        return self.word >> 28 == 1

    @property
    def macs(self) -> int:
        return int(1 << (self.word & 15))

    @property
    def cores(self) -> int:
        return 2 if self.is_u65 and self.macs == 512 else 1

    @property
    def ofm_microblock(self) -> int:
        return 4 if self.macs == 32 else 8

    @property
    def lut_base(self) -> int:
        """Byte offset of the 2 KiB of tables in a core's SHRAM (CONFIG counts both cores' KiB)."""
        return ((self.word >> 8 & 0xFF) // self.cores - 2) * 1024


@dataclass
class Registers:
    """Current values, and the operation that reads them (for messages)."""

    config: Config
    cmd0: dict[int, int] = field(default_factory=dict)
    cmd1: dict[int, tuple[int, int]] = field(default_factory=dict)
    operation: str = ""
    offset: int = 0

    def refuse(self, reason: str) -> NoReturn:
        raise Refused(self.operation, self.offset, reason)

    def u16(self, register: Cmd0) -> int:
        if register not in self.cmd0:
            self.refuse(f"needs {register.name}, which the stream never wrote")
        return self.cmd0[register]

    def s16(self, register: Cmd0) -> int:
        value = self.u16(register)
        return value - 0x10000 if value & 0x8000 else value

    def i16(self, register: Cmd0, signed: bool) -> int:
        return self.s16(register) if signed else self.u16(register)

    def m1(self, register: Cmd0) -> int:
        """A size that is stored minus one."""
        return self.u16(register) + 1

    def region(self, register: Cmd0) -> int:
        value = self.u16(register)
        if value > 7:
            self.refuse(f"{register.name} {value:#x} is not a region number")
        return value

    def pair(self, register: Cmd1) -> tuple[int, int]:
        """Parameter and payload of a two-word register."""
        if register not in self.cmd1:
            self.refuse(f"needs {register.name}, which the stream never wrote")
        return self.cmd1[register]

    def address(self, register: Cmd1) -> int:
        """40 bits, unsigned."""
        parameter, payload = self.pair(register)
        return (parameter & 0xFF) << 32 | payload

    def stride(self, register: Cmd1) -> int:
        """40 bits, signed."""
        value = self.address(register)
        return value - (1 << 40) if value >> 39 else value

    def scale(self, register: Cmd1) -> tuple[int, int]:
        """32-bit unsigned scale and 6-bit shift."""
        parameter, payload = self.pair(register)
        return payload, parameter & 0x3F
