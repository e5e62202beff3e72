# SPDX-License-Identifier: Apache-2.0
"""Disassemble an Ethos-U55 or U65 command stream into the field's own names."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from npubox.errors import ModelError
from npubox.formats.network import CommandStream
from npubox.formats.payload import config_name
from npubox.hw.ethosu.commands import CMD1_CONTROL, CODE_MASK, Cmd0, Cmd1
from npubox.tools.command_fields import CMD0_FIELDS, CMD1_FIELDS, SHIFT_AT, Field

FIRST_REGISTER = 256  # cmd0 codes below are operations
LOW_BITS = 0xFFFF  # code, reserved bits and control: matched as a whole
U55_U65 = (0, 1)  # product, CONFIG bits 31:28


@dataclass(frozen=True)
class Line:
    """One command. The lines of a stream cover its bytes without a gap."""

    offset: int  # bytes into the stream
    code: int  # the low 16 bits of the first word
    name: str  # NPU_OP_…, NPU_SET_…, or "unknown …"
    fields: dict[str, int]  # decoded numbers, in the table's order
    shown: dict[str, str]  # the same in the field's own terms
    words: tuple[int, ...]
    problem: str | None = None
    left_over: bytes = b""  # at the stream's end, less than a word

    @property
    def size(self) -> int:
        return 4 * len(self.words) + len(self.left_over)

    @property
    def text(self) -> str:
        words = " ".join(f"{word:08x}" for word in self.words)
        what = " ".join(f"{name}={value}" for name, value in self.shown.items())
        problem = f"; {self.problem}" if self.problem else ""
        return f"{self.offset:#08x}  {words:<17}  {self.name:<25} {what}".rstrip() + problem

    def to_json(self) -> dict[str, Any]:
        """What `npubox disasm --json` prints for one command; words and fields as numbers."""
        return {
            "offset": self.offset,
            "code": self.code,
            "name": self.name,
            "fields": self.fields,
            "shown": self.shown,
            "words": list(self.words),
            "problem": self.problem,
        }


def disassemble_stream(stream: CommandStream) -> Iterator[Line]:
    """The lines of a stream. Raises `ModelError` for one that was made for another NPU than U55 or U65."""
    if stream.config >> 28 not in U55_U65:
        made_for = config_name(stream.config, stream.npu_id)
        raise ModelError(f"the command stream is for {made_for}; npubox disassembles those of U55 and U65")
    return disassemble(stream.words)


def disassemble(words: bytes) -> Iterator[Line]:
    """The lines of a raw U55 or U65 command stream, little-endian words.

    What is no command of those NPUs is shown by its number; a problem names a missing payload word and
    bytes left over at the end.
    """
    whole = struct.unpack(f"<{len(words) // 4}I", words[: len(words) // 4 * 4])
    at = 0
    while at < len(whole):
        count = 2 if whole[at] & CMD1_CONTROL else 1
        line = _line(at * 4, whole[at : at + count])
        at += len(line.words)
        yield line
    left = words[len(whole) * 4 :]
    if left:
        problem = f"{len(left)} bytes left over: {left.hex()}"
        yield Line(len(whole) * 4, 0, "unknown", {}, {}, (), problem, left)


def _line(offset: int, words: tuple[int, ...]) -> Line:
    code, parameter = words[0] & LOW_BITS, words[0] >> 16
    name, fields = _known(code)
    if code & CMD1_CONTROL and len(words) == 1:
        return Line(offset, code, name, {}, {}, words, "truncated: the payload word is missing")
    if fields is None:
        return Line(offset, code, name, {}, {}, words, "unknown command")
    value = words[1] | parameter << SHIFT_AT if len(words) == 2 else parameter
    numbers = {field.name: field.read(value) for field in fields}
    shown = {field.name: field.show(numbers[field.name]) for field in fields}
    rest = value & ~sum(field.mask for field in fields)
    problem = f"bits that mean nothing here are set: {rest:#x}" if rest else None
    return Line(offset, code, name, numbers, shown, words, problem)


def _known(code: int) -> tuple[str, tuple[Field, ...] | None]:
    number = code & CODE_MASK
    if code == number and number in CMD0_FIELDS:
        cmd0 = Cmd0(number)
        prefix = "NPU_" if number < FIRST_REGISTER else "NPU_SET_"
        return prefix + cmd0.name, CMD0_FIELDS[cmd0]
    if code == number | CMD1_CONTROL and number in CMD1_FIELDS:
        cmd1 = Cmd1(number)
        return f"NPU_SET_{cmd1.name}", CMD1_FIELDS[cmd1]
    return f"unknown {code:#06x}", None
