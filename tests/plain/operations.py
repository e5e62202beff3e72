# SPDX-License-Identifier: Apache-2.0
"""Convolution, depthwise, pooling and element-wise operations (facts §4 and §7)."""

from __future__ import annotations

from dataclasses import dataclass

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
    PoolMode,
    Rounding,
    ScaleMode,
    Upscale,
)

from .arithmetic import finish, ifm_rounding, ofm_rounding, ofm_scale, scaled
from .memory import IFM, IFM2, Ints, Memory, load, precision, zero_point
from .registers import Registers
from .weights import BadStream, Order, unpack

KERNEL_STRIDE_KNOWN = 0x27F
SCALE_RECORD = 10
EXACT_IN_FLOAT = 1 << 53
ACCUMULATOR_BITS = {0: 32, 1: 40}


@dataclass(frozen=True)
class Kernel:
    """Sizes in elements (height, width), undilated; the padding top, left, bottom, right."""

    size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pad: tuple[int, int, int, int]
    part_kernel: bool


def read_kernel(registers: Registers) -> Kernel:
    bits = registers.u16(Cmd0.KERNEL_STRIDE)
    if bits & ~KERNEL_STRIDE_KNOWN or bits >> 5 & 1:
        registers.refuse(f"KERNEL_STRIDE {bits:#x}: decomposition and unknown bits were never verified")
    dilation = ((bits >> 4 & 1) + 1, (bits >> 3 & 1) + 1)
    spread = registers.u16(Cmd0.KERNEL_HEIGHT_M1), registers.u16(Cmd0.KERNEL_WIDTH_M1)
    return Kernel(
        size=(spread[0] // dilation[0] + 1, spread[1] // dilation[1] + 1),
        stride=((bits >> 1 & 1 | bits >> 8 & 2) + 1, (bits & 1 | bits >> 5 & 2) + 1),
        dilation=dilation,
        pad=(
            registers.u16(Cmd0.IFM_PAD_TOP),
            registers.u16(Cmd0.IFM_PAD_LEFT),
            registers.u16(Cmd0.IFM_PAD_BOTTOM),
            registers.u16(Cmd0.IFM_PAD_RIGHT),
        ),
        part_kernel=bool(bits >> 2 & 1),
    )


def ofm_shape(registers: Registers) -> tuple[int, int, int]:
    return (
        registers.m1(Cmd0.OFM_HEIGHT_M1),
        registers.m1(Cmd0.OFM_WIDTH_M1),
        registers.m1(Cmd0.OFM_DEPTH_M1),
    )


def padded_ifm(registers: Registers, memory: Memory, kernel: Kernel, fill: int) -> Ints:
    """The upscaled and padded IFM minus nothing: raw values, `fill` in the padding."""
    ofm = ofm_shape(registers)
    top, left, bottom, right = kernel.pad
    spread = registers.m1(Cmd0.KERNEL_HEIGHT_M1), registers.m1(Cmd0.KERNEL_WIDTH_M1)
    height = (ofm[0] - 1) * kernel.stride[0] + spread[0] - top - bottom
    width = (ofm[1] - 1) * kernel.stride[1] + spread[1] - left - right
    if height < 1 or width < 1:
        registers.refuse(f"the IFM would have {height} rows and {width} columns")
    depth = registers.m1(Cmd0.IFM_DEPTH_M1)
    upscale = registers.u16(Cmd0.IFM_UPSCALE)
    if upscale == Upscale.NONE:
        ifm = load(registers, memory, IFM, (height, width, depth))
    elif upscale in (Upscale.NEAREST, Upscale.ZEROS):
        small = load(registers, memory, IFM, ((height + 1) // 2, (width + 1) // 2, depth))
        ifm = small.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
        if upscale == Upscale.ZEROS:
            ifm[1::2] = zero_point(registers, IFM)
            ifm[:, 1::2] = zero_point(registers, IFM)
    else:
        registers.refuse(f"IFM_UPSCALE {upscale} is not known")
    return np.pad(ifm, ((top, bottom), (left, right), (0, 0)), constant_values=fill)


def windows(registers: Registers, kernel: Kernel, padded: Ints) -> list[tuple[int, int, Ints]]:
    """For each kernel element (y, x) the IFM values that meet it, (OFM height, OFM width, depth)."""
    height, width, _ = ofm_shape(registers)
    found = []
    for y in range(kernel.size[0]):
        for x in range(kernel.size[1]):
            top, left = y * kernel.dilation[0], x * kernel.dilation[1]
            found.append(
                (
                    y,
                    x,
                    padded[
                        top : top + (height - 1) * kernel.stride[0] + 1 : kernel.stride[0],
                        left : left + (width - 1) * kernel.stride[1] + 1 : kernel.stride[1],
                    ],
                )
            )
    return found


def cores(registers: Registers) -> int:
    mode = registers.cmd0.get(Cmd0.PARALLEL_MODE, 0)
    if mode > 1 or (mode == 1 and not (registers.config.is_u65 and registers.config.macs == 512)):
        registers.refuse(f"PARALLEL_MODE {mode} on a device without two cores")
    return mode + 1


def read_weights(registers: Registers, memory: Memory, kernel: Kernel, depthwise: bool) -> Ints:
    """Weights (o, ky, kx, i) of all channels of the operation."""
    depth, count = ofm_shape(registers)[2], cores(registers)
    ifm_depth = registers.m1(Cmd0.IFM_DEPTH_M1)
    region = registers.region(Cmd0.WEIGHT_REGION)
    names = ((Cmd1.WEIGHT_BASE, Cmd1.WEIGHT_LENGTH), (Cmd1.WEIGHT1_BASE, Cmd1.WEIGHT1_LENGTH))
    weights = np.zeros((depth, *kernel.size, 1 if depthwise else ifm_depth), np.int64)
    for core in range(min(count, depth)):
        block = (registers.m1(Cmd0.OFM_BLK_DEPTH_M1) + count - 1 - core) // count
        order = Order(
            ofm_depth=len(range(core, depth, count)),
            ifm_depth=ifm_depth,
            kernel=kernel.size,
            dilation=kernel.dilation,
            block_depth=block,
            microblock=registers.config.ofm_microblock,
            ifm_bits=8 * precision(registers, IFM).size,
            depthwise=depthwise,
            part_kernel=kernel.part_kernel,
        )
        base, length = names[core]
        data = memory.span(region, registers.address(base), registers.address(length))
        try:
            weights[core::count] = unpack(data.tobytes(), order)
        except BadStream as error:
            registers.refuse(str(error))
    return weights


def read_scales(registers: Registers, memory: Memory) -> tuple[Ints, Ints, Ints]:
    """Bias, scale and shift of every channel (facts §5.1)."""
    depth, count = ofm_shape(registers)[2], cores(registers)
    region = registers.region(Cmd0.SCALE_REGION)
    names = ((Cmd1.SCALE_BASE, Cmd1.SCALE_LENGTH), (Cmd1.SCALE1_BASE, Cmd1.SCALE1_LENGTH))
    records = np.zeros((depth, SCALE_RECORD), np.int64)
    for core in range(min(count, depth)):
        base, length = names[core]
        needed = len(range(core, depth, count)) * SCALE_RECORD
        if registers.address(length) < needed:
            registers.refuse(f"{length.name} is shorter than the {needed} bytes of its channels")
        data = memory.span(region, registers.address(base), needed)
        records[core::count] = data.reshape(-1, SCALE_RECORD)
    bias = (records[:, :5] << 8 * np.arange(5)).sum(axis=1)
    bias -= np.where(bias >> 39, 1 << 40, 0)
    return bias, (records[:, 5:9] << 8 * np.arange(4)).sum(axis=1), records[:, 9] & 0x3F


def convolution(registers: Registers, memory: Memory, lut: bytearray, depthwise: bool) -> None:
    kernel, ofm = read_kernel(registers), ofm_shape(registers)
    if precision(registers, IFM).size == 4:
        registers.refuse("a convolution of 32-bit elements")
    if depthwise and (registers.m1(Cmd0.IFM_DEPTH_M1) != ofm[2] or kernel.part_kernel):
        registers.refuse("a depthwise operation whose IFM and OFM depth differ, or in part-kernel order")
    if registers.u16(Cmd0.OFM_PRECISION) >> 8 & 1:
        registers.refuse("a convolution with a global scale")
    zero = zero_point(registers, IFM)
    padded = padded_ifm(registers, memory, kernel, zero) - zero
    weights = read_weights(registers, memory, kernel, depthwise)
    bias, scale, shift = read_scales(registers, memory)

    largest = int(np.abs(padded).max()) * int(np.abs(weights).sum(axis=(1, 2, 3)).max())
    if largest >= EXACT_IN_FLOAT:
        registers.refuse("sums this large leave every accumulator")
    taps = weights.astype(np.float64)  # float64 goes through BLAS, and is exact below 2^53
    total = np.zeros(ofm)
    for y, x, values in windows(registers, kernel, padded):
        total += values * taps[:, y, x, 0] if depthwise else values.astype(np.float64) @ taps[:, y, x].T
    accumulator = total.astype(np.int64) + bias
    check_accumulator(registers, accumulator)
    finish(registers, memory, lut, scaled(accumulator, scale, shift, ofm_rounding(registers)))


def check_accumulator(registers: Registers, values: Ints) -> None:
    kind = registers.u16(Cmd0.ACC_FORMAT)
    if kind not in ACCUMULATOR_BITS:
        registers.refuse(f"ACC_FORMAT {kind} is not known")
    limit = 1 << ACCUMULATOR_BITS[kind] - 1
    if values.max() >= limit or values.min() < -limit:
        registers.refuse(f"an accumulator overflows {ACCUMULATOR_BITS[kind]} bits")


def pool(registers: Registers, memory: Memory, lut: bytearray, mode: int) -> None:
    kernel, ofm = read_kernel(registers), ofm_shape(registers)
    if mode == PoolMode.REDUCE_SUM:
        if kernel.size != (1, 1) or ofm[2] != 1:
            registers.refuse("a reduce-sum with a kernel, or with more than one output channel")
        values = padded_ifm(registers, memory, kernel, 0) - zero_point(registers, IFM)
        summed = windows(registers, kernel, values)[0][2].sum(axis=2, keepdims=True)
        finish(registers, memory, lut, pool_scaled(registers, summed))
        return
    if registers.m1(Cmd0.IFM_DEPTH_M1) != ofm[2]:
        registers.refuse("a pool whose IFM and OFM depth differ")
    if mode == PoolMode.MAX:
        finish(registers, memory, lut, max_pool(registers, memory, kernel))
    elif mode == PoolMode.AVERAGE:
        finish(registers, memory, lut, average_pool(registers, memory, kernel))
    else:
        registers.refuse(f"pooling mode {mode} is not known")


def max_pool(registers: Registers, memory: Memory, kernel: Kernel) -> Ints:
    nothing = -(1 << 40)
    padded = padded_ifm(registers, memory, kernel, nothing)
    best = np.full(ofm_shape(registers), nothing)
    for _, _, values in windows(registers, kernel, padded):
        best = np.maximum(best, values)
    if best.min() == nothing:
        registers.refuse("a max pool window that holds padding only")
    best -= zero_point(registers, IFM)
    if registers.u16(Cmd0.OFM_PRECISION) >> 8 & 1:
        return pool_scaled(registers, best)
    return best


def pool_scaled(registers: Registers, values: Ints) -> Ints:
    if not registers.u16(Cmd0.OFM_PRECISION) >> 8 & 1:
        registers.refuse("a pool that needs a scale, in per-channel mode")
    return scaled(values, *ofm_scale(registers), ofm_rounding(registers))


def average_pool(registers: Registers, memory: Memory, kernel: Kernel) -> Ints:
    zero = zero_point(registers, IFM)
    padded = padded_ifm(registers, memory, kernel, zero) - zero
    summed = np.zeros(ofm_shape(registers), np.int64)
    for _, _, values in windows(registers, kernel, padded):
        summed += values
    if not any(kernel.pad):
        return pool_scaled(registers, summed)
    top, left, bottom, right = kernel.pad
    inside = np.zeros((*padded.shape[:2], 1), np.int64)
    inside[top : padded.shape[0] - bottom, left : padded.shape[1] - right] = 1
    counts = sum((valid for _, _, valid in windows(registers, kernel, inside)), np.zeros((), np.int64))
    result = np.zeros_like(summed)
    for count in np.unique(counts):
        if count == 0:
            registers.refuse("an average pool window that holds padding only")
        here = counts[..., 0] == count
        result[here] = scaled(summed[here], *average_scale(int(count)), ofm_rounding(registers))
    return result


def average_scale(count: int) -> tuple[int, int]:
    e = (count - 1).bit_length()
    return ((1 << 31 + e) + (1 << e)) // count, 31 + e


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
