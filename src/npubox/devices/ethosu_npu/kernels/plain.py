# SPDX-License-Identifier: Apache-2.0
"""Every operation in plain int64 loops: all precisions, whatever the registers ask for.

Convolution here is the path for what the byte kernels cannot prove exact. Source of the arithmetic:
the project's facts, ethosu-npu.md §4 and §7.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from npubox.devices.ethosu_npu.kernels.scaling import scaled
from npubox.devices.jit import i64, kernel

Int64Array = npt.NDArray[np.int64]
Int16Array = npt.NDArray[np.int16]

OVERFLOW = 1
SHIFT_RANGE = 2
EMPTY_WINDOW = 3

_WINDOW = "int64, int64, int64, int64, int64, int64"


@kernel(f"int64(int64[:, :, ::1], int16[:, :, :, ::1], int64, boolean, {_WINDOW}, int64[:, :, ::1])")
def convolve(
    ifm: Int64Array,
    weights: Int16Array,
    zero_point: int,
    depthwise: bool,
    stride_y: int,
    stride_x: int,
    dilation_y: int,
    dilation_x: int,
    top: int,
    left: int,
    out: Int64Array,
) -> int:
    """out[y, x, o] = sum of (ifm - zero_point) * weights[o, ky, kx, c], without bias."""
    ifm_height, ifm_width, ifm_depth = ifm.shape
    height, width, depth = out.shape
    kernel_h, kernel_w = weights.shape[1], weights.shape[2]
    for y in range(height):
        for x in range(width):
            for o in range(depth):
                total = i64(0)
                for ky in range(kernel_h):
                    iy = y * stride_y + ky * dilation_y - top
                    if iy < 0 or iy >= ifm_height:
                        continue
                    for kx in range(kernel_w):
                        ix = x * stride_x + kx * dilation_x - left
                        if ix < 0 or ix >= ifm_width:
                            continue
                        if depthwise:
                            total += (ifm[iy, ix, o] - zero_point) * weights[o, ky, kx, 0]
                        else:
                            for c in range(ifm_depth):
                                total += (ifm[iy, ix, c] - zero_point) * weights[o, ky, kx, c]
                out[y, x, o] = total
    return 0


@kernel(
    f"int64(int64[:, :, ::1], int64, boolean, int64, int64, {_WINDOW}, int64[:, ::1], int64,"
    " int64[:, :, ::1])"
)
def pool(
    ifm: Int64Array,
    zero_point: int,
    average: bool,
    kernel_h: int,
    kernel_w: int,
    stride_y: int,
    stride_x: int,
    top: int,
    left: int,
    by_count: int,
    rounding: int,
    scales: Int64Array,
    limit: int,
    out: Int64Array,
) -> int:
    """Maximum or sum over each window, minus the zero point; padding does not count.

    With `by_count` a sum is divided by the number of valid elements n: scales[n] = (scale, shift).
    """
    ifm_height, ifm_width, depth = ifm.shape
    height, width, _ = out.shape
    for y in range(height):
        y0 = max(0, y * stride_y - top)
        y1 = min(ifm_height, y * stride_y - top + kernel_h)
        for x in range(width):
            x0 = max(0, x * stride_x - left)
            x1 = min(ifm_width, x * stride_x - left + kernel_w)
            n = max(0, y1 - y0) * max(0, x1 - x0)
            if n == 0:
                return EMPTY_WINDOW
            for c in range(depth):
                out[y, x, c] = i64(0) if average else ifm[y0, x0, c]
            for iy in range(y0, y1):
                for ix in range(x0, x1):
                    if average:
                        for c in range(depth):
                            out[y, x, c] += ifm[iy, ix, c]
                    else:
                        for c in range(depth):
                            out[y, x, c] = max(out[y, x, c], ifm[iy, ix, c])
            if not average:
                for c in range(depth):
                    out[y, x, c] -= zero_point
                continue
            for c in range(depth):
                total = i64(out[y, x, c]) - n * zero_point
                if total < -limit or total >= limit:
                    return OVERFLOW
                out[y, x, c] = scaled(total, scales[n, 0], scales[n, 1], rounding, 0) if by_count else total
    return 0


@kernel("int64(int64[:, :, ::1], int64, int64, int64[:, :, ::1])")
def reduce_sum(ifm: Int64Array, zero_point: int, limit: int, out: Int64Array) -> int:
    """out[y, x, 0] = sum over the channels of (ifm - zero_point)."""
    height, width, depth = ifm.shape
    for y in range(height):
        for x in range(width):
            total = i64(0)
            for c in range(depth):
                total += ifm[y, x, c] - zero_point
            if total < -limit or total >= limit:
                return OVERFLOW
            out[y, x, 0] = total
    return 0


MUL, ADD, SUB, MIN, MAX, LRELU, ABS, CLZ, SHR, SHL = range(10)
MUL_SHIFT = 10  # 32-bit x 32-bit: only OFM_SCALE's shift counts
_DOUBLE = 0


@kernel(
    "int64(int64[:, :, ::1], int64[:, :, ::1], int64, int64, int64, int64, int64[::1], int64, int64, int64,"
    " int64[:, :, ::1])"
)
def elementwise(
    first: Int64Array,
    second: Int64Array,
    first_zero: int,
    second_zero: int,
    swapped: int,
    mode: int,
    inputs: Int64Array,
    rounding: int,
    scale: int,
    shift: int,
    out: Int64Array,
) -> int:
    """out = mode(A, B) before OFM scaling (lrelu and 32-bit mul: after it); `second` is broadcast.

    inputs = (scale mode, OPA scale, OPA shift, OPB scale, S of the facts' §7.1) for add and sub.
    """
    height, width, depth = out.shape
    step_y = 1 if second.shape[0] > 1 else 0
    step_x = 1 if second.shape[1] > 1 else 0
    step_c = 1 if second.shape[2] > 1 else 0
    scale_mode, opa, opa_shift, opb, base_shift = inputs[0], inputs[1], inputs[2], inputs[3], inputs[4]
    for y in range(height):
        for x in range(width):
            for c in range(depth):
                a = first[y, x, c] - first_zero
                b = second[y * step_y, x * step_x, c * step_c] - second_zero
                if swapped:
                    a, b = b, a
                if mode in (ADD, SUB):
                    if scale_mode == 0:
                        a *= opa & 0xFFFF
                        b *= opb
                    elif scale_mode == 1:
                        a = scaled(a, opa, opa_shift, _DOUBLE, base_shift)
                        b <<= base_shift - 1
                    else:
                        b = scaled(b, opa, opa_shift, _DOUBLE, base_shift)
                        a <<= base_shift - 1
                    v = a + b if mode == ADD else a - b
                elif mode == MUL:
                    v = a * b
                elif mode == MUL_SHIFT:
                    if a < -(1 << 31) or a >= 1 << 31 or b < -(1 << 31) or b >= 1 << 31:
                        return OVERFLOW
                    product = a * b
                    half = i64(1) << (shift - 1) if shift > 0 else i64(0)
                    add = half
                    if rounding == 0 and shift > 31:
                        add += 1 << 30 if product >= 0 else -(1 << 30)
                    v = (product >> 1) + (add >> 1) + (product & add & 1)
                    v = v >> (shift - 1) if shift > 0 else product
                elif mode == MIN:
                    v = min(a, b)
                elif mode == MAX:
                    v = max(a, b)
                elif mode == LRELU:
                    v = scaled(a, scale, shift, rounding, 0) if a < 0 else a
                elif mode == ABS:
                    v = abs(a)
                elif mode == CLZ:
                    v = i64(0)
                    bits = a & 0xFFFFFFFF
                    while v < 32 and not (bits >> (31 - v)) & 1:
                        v += 1
                elif mode == SHR:
                    if b < 0 or b > 31:
                        return SHIFT_RANGE
                    v = scaled(a, 1, b, rounding, 0)
                else:
                    if b < 0 or b > 31:
                        return SHIFT_RANGE
                    v = a << b
                    if v < -(1 << 31) or v >= 1 << 31:
                        return OVERFLOW
                out[y, x, c] = v
    return 0
