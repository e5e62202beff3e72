# SPDX-License-Identifier: Apache-2.0
"""From command words to commands, and the register file that the commands write."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from typing import NamedTuple

from npubox.devices.ethosu_npu.faults import Refused
from npubox.hw.ethosu import commands as hw
from npubox.hw.ethosu.commands import Cmd0, Cmd1
from npubox.hw.ethosu.registers import Product

FIRST_REGISTER = 256
KEPT_STATES = 4096
_40_BITS = (1 << 40) - 1
_CMD0 = {int(code): (code, code.name) for code in Cmd0}
_CMD1 = {int(code): (code, code.name) for code in Cmd1}

FM_BASES = frozenset(Cmd1[f"{fm}_BASE{tile}"] for fm in ("IFM", "IFM2", "OFM") for tile in range(4))
"""The registers that say where feature maps lie."""


class Command(NamedTuple):
    """One command: `offset` is its byte offset in the stream; `register` is None for operations."""

    offset: int
    name: str
    operation: Cmd0 | None
    register: Cmd0 | Cmd1 | None
    parameter: int
    payload: int = 0

    @property
    def value(self) -> int:
        """What a register write stores: 16 bits (cmd0), or 16 bits of parameter above 32 of payload."""
        return self.parameter << 32 | self.payload if isinstance(self.register, Cmd1) else self.parameter


class BadCommand(Refused):
    """A word that is no command of this NPU; ends decoding at `offset`."""

    def __init__(self, offset: int, name: str, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.name = name


def commands(words: bytes) -> Iterator[Command]:
    """The commands of a stream in order. Raises BadCommand at the first word that is none."""
    count = len(words) // 4
    values = struct.unpack_from(f"<{count}I", words)
    at = 0
    while at < count:
        word = values[at]
        offset = 4 * at
        code, parameter = word & hw.CODE_MASK, word >> 16
        control = word & hw.CONTROL_MASK
        if word & hw.RESERVED_MASK or control not in (0, hw.CMD1_CONTROL):
            raise BadCommand(offset, f"word {word:#010x}", "reserved bits are set")
        known = _CMD1.get(code) if control else _CMD0.get(code)
        if known is None:
            kind = "cmd1" if control else "cmd0"
            raise BadCommand(offset, f"{kind} {code}", "there is no such command")
        member, name = known
        if isinstance(member, Cmd0):
            operation = code < FIRST_REGISTER
            yield Command(
                offset, name, member if operation else None, None if operation else member, parameter
            )
            at += 1
            continue
        if at + 1 >= count:
            raise BadCommand(offset, name, "the stream ends before its payload word")
        yield Command(offset, name, None, member, parameter, values[at + 1])
        at += 2


def check_exists(command: Command, product: Product) -> None:
    """Refuse what other members of the family have and this product has not."""
    code = command.register if command.operation is None else command.operation
    if code in hw.U85_ONLY:
        raise Refused("only the Ethos-U85 has it")
    if product is Product.U55 and code in hw.NOT_ON_U55:
        raise Refused("the Ethos-U55 does not have it")


class RegisterFile:
    """What the stream has written so far; reading a register that nothing wrote is refused."""

    def __init__(self) -> None:
        # Cmd0 and Cmd1 share numbers, and IntEnum members of equal value are equal: keep them apart.
        self._cmd0: dict[Cmd0, int] = {}
        self._cmd1: dict[Cmd1, int] = {}
        self._bases: dict[Cmd1, int] = {}
        self._state = -1
        self._states: dict[tuple[int, ...], int] = {}
        self._numbers = itertools.count()

    def write(self, command: Command) -> None:
        register, value = command.register, command.value
        if isinstance(register, Cmd1):
            if register in FM_BASES:
                self._bases[register] = value
            elif self._cmd1.get(register) != value:
                self._cmd1[register] = value
                self._state = -1
        elif register is not None and self._cmd0.get(register) != value:
            self._cmd0[register] = value
            self._state = -1

    @property
    def state(self) -> int:
        """A number for what all registers but `FM_BASES` hold; the same only where they hold the same."""
        if self._state < 0:
            # No register is ever taken out again, so places and counts tell which ones these are.
            content = (len(self._cmd0), *self._cmd0.values(), *self._cmd1.values())
            if len(self._states) >= KEPT_STATES:
                self._states.clear()
            self._state = self._states.setdefault(content, next(self._numbers))
        return self._state

    def unsigned(self, register: Cmd0, fields: int = 0xFFFF) -> int:
        """A cmd0 register's parameter; bits outside `fields` have no meaning and are refused."""
        try:
            value = self._cmd0[register]
        except KeyError:
            raise Refused(f"{register.name} was never written") from None
        if value & ~fields:
            raise Refused(f"{register.name} is {value:#x}: bits {value & ~fields:#x} are not defined")
        return value

    def signed(self, register: Cmd0, signed: bool = True) -> int:
        """A cmd0 register's 16 bits, as two's complement if `signed`."""
        value = self.unsigned(register)
        return value - 0x10000 if signed and value & 0x8000 else value

    def optional(self, register: Cmd0, default: int = 0) -> int:
        """A register that some generators leave at its reset value."""
        return self._cmd0.get(register, default)

    def address(self, register: Cmd1) -> int:
        """A 40-bit unsigned cmd1 value: an address or a length."""
        return self._in_40_bits(register, self._word(register))

    def address_or(self, register: Cmd1, default: int) -> int:
        """A 40-bit address that only the tiles in use must have."""
        return self._bases.get(register, default) & _40_BITS

    def stride(self, register: Cmd1) -> int:
        """A 40-bit two's complement cmd1 value, of which the parameter may be sign-extended."""
        word = self._word(register)
        value = word & _40_BITS
        if word >> 40 and not (word >> 40 == 0xFF and value >> 39):
            self._in_40_bits(register, word)
        return value - (1 << 40) if value >> 39 else value

    def payload(self, register: Cmd1) -> int:
        """The 32-bit payload of a scale register."""
        return self._word(register) & 0xFFFFFFFF

    def shift(self, register: Cmd1) -> int:
        """The shift that a scale register carries in its parameter, bits 5:0."""
        parameter = self._word(register) >> 32
        if parameter > 0x3F:
            raise Refused(f"the parameter of {register.name} is {parameter:#x}; a shift has 6 bits")
        return parameter

    @staticmethod
    def _in_40_bits(register: Cmd1, word: int) -> int:
        if word >> 40:
            raise Refused(f"{register.name} is {word:#x}, which has more than 40 bits")
        return word

    def _word(self, register: Cmd1) -> int:
        try:
            return self._bases[register] if register in FM_BASES else self._cmd1[register]
        except KeyError:
            raise Refused(f"{register.name} was never written") from None
