# SPDX-License-Identifier: Apache-2.0
"""From an accumulator to a stored element: scaling, zero point, clamp, tables.

Source: the project's facts, ethosu-npu.md §6 (rounding) and §7.5 (activation). Settings travel to the
kernels as an int64 vector, the columns of `Post`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from npubox.devices.jit import helper, i64, kernel

Int64Array = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]

DOUBLE = 0  # the other mode that decoding lets through, natural, adds half alone


class Post(IntEnum):
    """Columns of the settings vector. CLAMP 0 saturates to int32; SCALED 0 leaves the value alone."""

    SCALED = 0
    SCALE = 1
    SHIFT = 2
    ROUNDING = 3
    ZERO_POINT = 4
    CLAMP = 5
    LOW = 6
    HIGH = 7
    FUNCTION = 8
    TABLE_OFFSET = 9


class Function(IntEnum):
    NONE = 0
    TANH = 3
    SIGMOID = 4
    TABLE8 = 16
    TABLE16 = 17


_SCALED, _SCALE, _SHIFT, _ROUNDING = int(Post.SCALED), int(Post.SCALE), int(Post.SHIFT), int(Post.ROUNDING)
_ZERO_POINT, _CLAMP, _LOW, _HIGH = int(Post.ZERO_POINT), int(Post.CLAMP), int(Post.LOW), int(Post.HIGH)
_FUNCTION, _TABLE_OFFSET = int(Post.FUNCTION), int(Post.TABLE_OFFSET)
_TANH, _SIGMOID, _TABLE8, _TABLE16 = 3, 4, 16, 17

NARROW = 1 << 30
HUGE = 1 << 62


@helper
def _wide_scaled(v: int, s: int, k: int, add: int) -> int:
    """(v * s + add) >> k with a 128-bit product, saturated far outside any element; 0 <= s < 2^32."""
    high = (v >> 32) * s
    low = np.uint64(v & 0xFFFFFFFF) * np.uint64(s)
    total = low + np.uint64(add)
    carry = i64(1) if total < low else i64(0)
    high += i64(total >> np.uint64(32)) + (carry << 32)
    rest = i64(total & np.uint64(0xFFFFFFFF))
    if k >= 32:
        return high >> (k - 32)
    if high > HUGE >> (32 - k) or high < -(HUGE >> (32 - k)):
        return HUGE if high > 0 else -HUGE
    return (high << (32 - k)) | (rest >> k)


@helper
def scaled(v: int, s: int, k: int, rounding: int, d: int) -> int:
    """v * s / 2^k, rounded as `rounding` says; d is §6's double-round field. 0 <= add < 2^63 throughout."""
    half = i64(1) << (k - 1) if k > 0 else i64(0)
    if rounding == DOUBLE:
        extra = i64(1) << (30 - d) if k > 31 - d else i64(0)
        add = half + extra if v >= 0 else half - extra
    else:
        add = half
    if -NARROW <= v <= NARROW:
        return (v * s + add) >> k
    if s < 0:
        return _wide_scaled(-v, -s, k, add)
    return _wide_scaled(v, s, k, add)


def _sigmoid_table() -> Int64Array:
    def f(i: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        result: npt.NDArray[np.float64] = 65536.0 / (1.0 + np.exp(-i / 24.0))
        return result

    i = np.arange(256, dtype=np.float64)
    middle = f(i + 0.5) - (f(i) + f(i + 1)) / 2
    table: Int64Array = np.minimum(65535, np.floor(f(i) + 0.5 * middle + 0.5)).astype(np.int64)
    table[255] = 65535
    return table


SIGMOID_TABLE = _sigmoid_table()


@helper
def _sigmoid(v: int) -> int:
    a = abs(v)
    i = a >> 9
    if i >= 255:
        r = i64(0x7FFF) << 10
    else:
        r = (SIGMOID_TABLE[i] << 9) + (a & 511) * (SIGMOID_TABLE[i + 1] - SIGMOID_TABLE[i])
    return (r + 512 if v >= 0 else (i64(1) << 25) - r + 511) >> 10


@helper
def _tanh(v: int) -> int:
    a = abs(v)
    i = a >> 8
    if i >= 255:
        r = i64(0xFFFF) << 8
    else:
        r = (SIGMOID_TABLE[i] << 8) + (a & 255) * (SIGMOID_TABLE[i + 1] - SIGMOID_TABLE[i])
    return (r - (1 << 23) + 128 if v >= 0 else (1 << 23) - r + 127) >> 8


@helper
def finished(v: int, post: Any, table: Any) -> int:
    """What is stored for the scaled value `v`."""
    function = post[_FUNCTION]
    if function == _SIGMOID:
        v = _sigmoid(v)
    elif function == _TANH:
        v = _tanh(v)
    else:
        v += post[_ZERO_POINT]
    if post[_CLAMP] == 0:
        return min(max(v, -(1 << 31)), (1 << 31) - 1)
    v = min(max(v, post[_LOW]), post[_HIGH])
    if function == _TABLE8:
        return i64(table[v + post[_TABLE_OFFSET]])
    if function == _TABLE16:
        word = i64(table[(v + 32768) >> 7])
        base = ((word & 0xFFFF) ^ 0x8000) - 0x8000
        return base + (((word >> 16) * (v & 127) + 64) >> 7)
    return v


@kernel("int64(int64[::1], int64[::1], int32[::1], int32[::1])")
def finish(values: Int64Array, post: Int64Array, table: Int32Array, out: Int32Array) -> int:
    """Scale (by the one global scale) and finish every accumulator."""
    for i in range(values.shape[0]):
        v = values[i]
        if post[_SCALED]:
            v = scaled(v, post[_SCALE], post[_SHIFT], post[_ROUNDING], 0)
        out[i] = finished(v, post, table)
    return 0


@kernel("int64(int64[:, ::1], int64[:, ::1], int64[::1], int32[::1], int64, int32[:, ::1])")
def finish_channels(
    values: Int64Array, scales: Int64Array, post: Int64Array, table: Int32Array, limit: int, out: Int32Array
) -> int:
    """Scale and finish sums[pixel, channel] with scales[0] bias, [1] scale, [2] shift a channel.

    Returns 1 if an accumulator leaves -limit .. limit - 1, which is not modelled.
    """
    for p in range(values.shape[0]):
        for c in range(values.shape[1]):
            v = values[p, c] + scales[0, c]
            if v < -limit or v >= limit:
                return 1
            v = scaled(v, scales[1, c], scales[2, c], post[_ROUNDING], 0)
            out[p, c] = finished(v, post, table)
    return 0
