# SPDX-License-Identifier: Apache-2.0
"""Convolution and depthwise convolution (facts §4 and §5.1)."""

from __future__ import annotations

import math

import numpy as np

from npubox.hw.ethosu.commands import Cmd0, Cmd1

from .arithmetic import finish, ofm_rounding, scaled
from .kernel import Kernel, ofm_shape, padded_ifm, read_kernel, windows
from .memory import IFM, LARGEST, Ints, Memory, precision, zero_point
from .registers import Registers
from .weights import BadStream, Order, unpack

SCALE_RECORD = 10
EXACT_IN_FLOAT = 1 << 53
ACCUMULATOR_BITS = {0: 32, 1: 40}


def cores(registers: Registers) -> int:
    mode = registers.cmd0.get(Cmd0.PARALLEL_MODE, 0)
    if mode >= registers.config.cores:
        registers.refuse(f"PARALLEL_MODE {mode} on a device of {registers.config.cores} cores")
    return mode + 1


def read_weights(registers: Registers, memory: Memory, kernel: Kernel, depthwise: bool) -> Ints:
    """Weights (o, ky, kx, i) of all channels of the operation."""
    depth, count = ofm_shape(registers)[2], cores(registers)
    ifm_depth = registers.m1(Cmd0.IFM_DEPTH_M1)
    region = registers.region(Cmd0.WEIGHT_REGION)
    names = ((Cmd1.WEIGHT_BASE, Cmd1.WEIGHT_LENGTH), (Cmd1.WEIGHT1_BASE, Cmd1.WEIGHT1_LENGTH))
    shape = (depth, *kernel.size, 1 if depthwise else ifm_depth)
    if math.prod(shape) > LARGEST:
        registers.refuse(f"weights of the shape {shape} are too many to walk")
    weights = np.zeros(shape, np.int64)
    for core in range(min(count, depth)):
        block = (registers.m1(Cmd0.OFM_BLK_DEPTH_M1) + count - 1 - core) // count
        if not block:
            registers.refuse(f"core {core} has channels but a block depth of 0")
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
