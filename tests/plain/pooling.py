# SPDX-License-Identifier: Apache-2.0
"""Max and average pools and reduce-sum (facts §7.4)."""

from __future__ import annotations

import numpy as np

from npubox.hw.ethosu.commands import Cmd0, PoolMode

from .arithmetic import finish, ofm_rounding, ofm_scale, scaled
from .kernel import Kernel, ofm_shape, padded_ifm, read_kernel, windows
from .memory import IFM, Ints, Memory, zero_point
from .registers import Registers


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
