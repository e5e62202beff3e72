# SPDX-License-Identifier: Apache-2.0
"""Element-wise operations (facts §7.1 to §7.3)."""

from __future__ import annotations

import numpy as np

from npubox.hw.ethosu.commands import (
    IFM2_BROADCAST_C,
    IFM2_BROADCAST_H,
    IFM2_BROADCAST_W,
    IFM2_CONSTANT,
    IFM2_OPERAND_A,
    UNARY_MODES,
    Cmd0,
    Cmd1,
    ElementwiseMode,
    Rounding,
    ScaleMode,
    Upscale,
)

from .arithmetic import finish, ifm_rounding, ofm_rounding, ofm_scale, scaled
from .kernel import ofm_shape
from .memory import IFM, IFM2, Ints, Memory, load, precision, zero_point
from .registers import Registers


def elementwise(registers: Registers, memory: Memory, lut: bytearray, code: int) -> None:
    if code not in set(ElementwiseMode):
        registers.refuse(f"element-wise mode {code} is not known")
    mode = ElementwiseMode(code)
    shape = ofm_shape(registers)
    if registers.cmd0.get(Cmd0.IFM_UPSCALE, 0) != Upscale.NONE:
        registers.refuse("an element-wise operation with an upscaled IFM")
    a = load(registers, memory, IFM, shape) - zero_point(registers, IFM)
    if mode in UNARY_MODES:
        finish(registers, memory, lut, unary(registers, mode, a))
        return
    b = second_operand(registers, memory, shape)
    if registers.u16(Cmd0.IFM2_BROADCAST) & IFM2_OPERAND_A:
        a, b = b, a
    result = np.broadcast_to(binary(registers, mode, a, b), shape)
    finish(registers, memory, lut, result)


def second_operand(registers: Registers, memory: Memory, shape: tuple[int, int, int]) -> Ints:
    flags = registers.u16(Cmd0.IFM2_BROADCAST)
    known = IFM2_BROADCAST_H | IFM2_BROADCAST_W | IFM2_BROADCAST_C | IFM2_OPERAND_A | IFM2_CONSTANT
    if flags & ~known:
        registers.refuse(f"IFM2_BROADCAST {flags:#x} has unknown bits")
    first, second = precision(registers, IFM), precision(registers, IFM2)
    if (first.size, first.signed) != (second.size, second.signed):
        registers.refuse("operands of different precision")
    zero = zero_point(registers, IFM2)
    if flags & IFM2_CONSTANT:
        return np.full((1, 1, 1), registers.i16(Cmd0.IFM2_SCALAR, second.signed) - zero)
    small = (
        1 if flags & IFM2_BROADCAST_H else shape[0],
        1 if flags & IFM2_BROADCAST_W else shape[1],
        1 if flags & IFM2_BROADCAST_C else shape[2],
    )
    return load(registers, memory, IFM2, small) - zero


def unary(registers: Registers, mode: ElementwiseMode, a: Ints) -> Ints:
    if mode == ElementwiseMode.CLZ:
        word = a & 0xFFFFFFFF
        return 32 - np.frexp(word.astype(np.float64))[1].astype(np.int64)
    scale, shift = ofm_scale(registers)
    rounding = ofm_rounding(registers)
    if mode == ElementwiseMode.ABS:
        return scaled(np.abs(a), scale, shift, rounding)
    signed = scale - (1 << 32) if scale >> 31 else scale
    return np.where(a < 0, scaled(a, signed, shift, rounding), a)


def binary(registers: Registers, mode: ElementwiseMode, a: Ints, b: Ints) -> Ints:
    rounding = ofm_rounding(registers)
    if mode == ElementwiseMode.MIN:
        return np.minimum(a, b)
    if mode == ElementwiseMode.MAX:
        return np.maximum(a, b)
    if mode == ElementwiseMode.SHR:
        return shift_right(registers, a, b, rounding)
    if mode == ElementwiseMode.SHL:
        return shift_left(registers, a, b)
    scale, shift = ofm_scale(registers)
    wide = precision(registers, IFM).size == 4
    if mode == ElementwiseMode.MUL:
        return scaled(a * b, 1 if wide else scale, shift, rounding)
    a, b = (a, b) if wide else scaled_operands(registers, a, b)
    return scaled(a + b if mode == ElementwiseMode.ADD else a - b, scale, shift, rounding)


def scaled_operands(registers: Registers, a: Ints, b: Ints) -> tuple[Ints, Ints]:
    """Both operands of an 8- or 16-bit ADD or SUB on a common scale (facts §7.1)."""
    kind = precision(registers, IFM)
    mode = registers.u16(IFM.precision) >> 8 & 3
    scale, shift = registers.scale(Cmd1.OPA_SCALE)
    if mode == ScaleMode.OPA_OPB_16:
        return a * (scale & 0xFFFF), b * (registers.scale(Cmd1.OPB_SCALE)[0] & 0xFFFF)
    extra = 20 if kind.size == 1 else 15
    rounding = ifm_rounding(registers)
    if mode == ScaleMode.OPA_32:
        return scaled(a, scale, shift, rounding, extra), b << extra - 1
    if mode != ScaleMode.OPB_32:
        registers.refuse(f"input scale mode {mode} is not known")
    return a << extra - 1, scaled(b, scale, shift, rounding, extra)


def shift_right(registers: Registers, a: Ints, b: Ints, rounding: Rounding) -> Ints:
    check_shift(registers, b)
    a, b = np.broadcast_arrays(a, b)
    return scaled(a, 1, b, rounding)


def shift_left(registers: Registers, a: Ints, b: Ints) -> Ints:
    check_shift(registers, b)
    result = a << b
    if result.max() >> 31 > 0 or result.min() >> 31 < -1:
        registers.refuse("a left shift that overflows 32 bits")
    return result


def check_shift(registers: Registers, b: Ints) -> None:
    if b.min() < 0 or b.max() > 31:
        registers.refuse(f"a shift by {b.min()}..{b.max()}")
