# SPDX-License-Identifier: Apache-2.0
"""The plain interpreter: one pass over the words of a stream, nothing kept between two runs."""

from __future__ import annotations

from typing import Any

from npubox.hw.ethosu.commands import (
    CMD1_CONTROL,
    CODE_MASK,
    CONTROL_MASK,
    INTERNAL_REGION_BIT,
    RESERVED_MASK,
    Cmd0,
    Cmd1,
)

from .arithmetic import LUT_SIZE
from .convolution import convolution
from .elementwise import elementwise
from .errors import Fault, Refused
from .memory import Memory
from .pooling import pool
from .registers import Config, Registers

# What only Ethos-U85 has under these numbers.
U85_ONLY = {
    Cmd0.IFM_BROADCAST,
    Cmd0.WEIGHT_FORMAT,
    Cmd0.OP_RESIZE,
    Cmd1.DMA0_DST_STRIDE0,
    Cmd1.DMA0_DST_STRIDE1,
}
U65_ONLY = {Cmd0.PARALLEL_MODE, Cmd1.SCALE1_BASE, Cmd1.SCALE1_LENGTH}
IN_ORDER = {Cmd0.OP_IRQ, Cmd0.OP_DMA_WAIT, Cmd0.OP_KERNEL_WAIT, Cmd0.OP_PMU_MASK}
OPERATION_END = 256
FIRST_DMA_STRIDE = 9


def run(words: bytes, regions: dict[int, Any], config: int, lut: bytearray | None = None) -> None:
    """Execute a command stream on the bytes of its regions, in place.

    `words` are the stream's bytes (no payload header), `regions` writable buffers by region number,
    `config` the CONFIG word of the device, `lut` its 2 KiB of tables if they outlive the run.
    Raises Refused for what it cannot execute and Fault for an access outside a region.
    """
    registers = Registers(Config(config))
    if config >> 28 > 1:
        raise Refused("CONFIG", 0, f"{config:#x} is neither an Ethos-U55 nor an Ethos-U65")
    memory = Memory(regions)
    tables = bytearray(LUT_SIZE) if lut is None else lut
    offset = 0
    while offset + 4 <= len(words):
        at = offset
        word = int.from_bytes(words[offset : offset + 4], "little")
        code, control, parameter = word & CODE_MASK, word & CONTROL_MASK, word >> 16
        offset += 4
        if word & RESERVED_MASK or control not in (0, CMD1_CONTROL):
            raise Refused(f"{word:#010x}", at, "no command has these bits")
        if control == CMD1_CONTROL:
            if offset + 4 > len(words):
                raise Refused(f"{word:#010x}", at, "the stream ends before the payload")
            register = _known(Cmd1, code, at, registers.config)
            payload = int.from_bytes(words[offset : offset + 4], "little")
            registers.cmd1[register] = (parameter, payload)
            offset += 4
            continue
        command = _known(Cmd0, code, at, registers.config)
        if command >= OPERATION_END:
            registers.cmd0[command] = parameter
        elif command == Cmd0.OP_STOP:
            return
        elif command not in IN_ORDER:
            registers.operation, registers.offset = Cmd0(command).name, at
            _execute(registers, memory, tables, command, parameter)
    raise Refused("end of stream", len(words), "the stream has no STOP")


def _known(kind: type[Cmd0] | type[Cmd1], code: int, at: int, config: Config) -> int:
    name = f"command {code}"
    try:
        command = kind(code)
    except ValueError:
        raise Refused(name, at, "not a command of this device") from None
    if command in {c for c in U85_ONLY if isinstance(c, kind)}:
        raise Refused(command.name, at, "an Ethos-U85 command")
    if not config.is_u65 and command in {c for c in U65_ONLY if isinstance(c, kind)}:
        raise Refused(command.name, at, "an Ethos-U65 command")
    return command


def _execute(registers: Registers, memory: Memory, lut: bytearray, command: int, parameter: int) -> None:
    if command == Cmd0.OP_DMA_START:
        _dma(registers, memory, lut)
    elif command == Cmd0.OP_POOL:
        pool(registers, memory, lut, parameter)
    elif command == Cmd0.OP_ELEMENTWISE:
        elementwise(registers, memory, lut, parameter)
    elif parameter:
        registers.refuse(f"parameter {parameter:#x} is not known")
    else:
        convolution(registers, memory, lut, depthwise=command == Cmd0.OP_DEPTHWISE)


def _dma(registers: Registers, memory: Memory, lut: bytearray) -> None:
    """One-dimensional copies: within regions, or of tables into SHRAM (facts §8)."""
    source, target = registers.u16(Cmd0.DMA0_SRC_REGION), registers.u16(Cmd0.DMA0_DST_REGION)
    if (source | target) >> FIRST_DMA_STRIDE or source & INTERNAL_REGION_BIT:
        registers.refuse("strided copies and copies out of SHRAM were never verified")
    length = registers.address(Cmd1.DMA0_LEN)
    data = memory.span(registers.region(Cmd0.DMA0_SRC_REGION), registers.address(Cmd1.DMA0_SRC), length)
    at = registers.address(Cmd1.DMA0_DST)
    if not target & INTERNAL_REGION_BIT:
        memory.span(registers.region(Cmd0.DMA0_DST_REGION), at, length)[:] = data.copy()
        return
    start = at - registers.config.lut_base
    if start < 0 or start + length > LUT_SIZE:
        raise Fault("SHRAM", at, f"{length} bytes do not lie in the LUT RAM")
    lut[start : start + length] = data.tobytes()
