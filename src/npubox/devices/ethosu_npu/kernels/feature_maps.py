# SPDX-License-Identifier: Apache-2.0
"""Reading and writing feature maps: tiles, NHWC and NHCWB16, 8 to 32 bits, any strides.

A feature map travels to the kernels as an int64 vector, the columns of `Map`; bases are byte offsets
into the memory view that goes with it. Address rule: the project's facts, ethosu-npu.md §3.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from npubox.devices import simd
from npubox.devices.jit import helper, i64, kernel

ByteArray = npt.NDArray[np.uint8]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]


class Map(IntEnum):
    BASE0 = 0
    BASE1 = 1
    BASE2 = 2
    BASE3 = 3
    STRIDE_Y = 4
    STRIDE_X = 5  # of a pixel: STRIDE_X in NHWC, 16 elements in NHCWB16
    STRIDE_C = 6
    WIDTH0 = 7
    HEIGHT0 = 8
    HEIGHT1 = 9
    NHCWB16 = 10
    ELEMENT_SIZE = 11
    SIGNED = 12


_STRIDE_Y, _STRIDE_X, _STRIDE_C = int(Map.STRIDE_Y), int(Map.STRIDE_X), int(Map.STRIDE_C)
_WIDTH0, _HEIGHT0, _HEIGHT1 = int(Map.WIDTH0), int(Map.HEIGHT0), int(Map.HEIGHT1)
_NHCWB16, _ELEMENT_SIZE, _SIGNED = int(Map.NHCWB16), int(Map.ELEMENT_SIZE), int(Map.SIGNED)


@helper
def pixel(fm: Any, y: int, x: int) -> int:
    """Byte offset of channel 0 of pixel (y, x)."""
    if x < fm[_WIDTH0]:
        if y < fm[_HEIGHT0]:
            base = fm[0]
        else:
            base = fm[2]
            y -= fm[_HEIGHT0]
    else:
        x -= fm[_WIDTH0]
        if y < fm[_HEIGHT1]:
            base = fm[1]
        else:
            base = fm[3]
            y -= fm[_HEIGHT1]
    return i64(base + y * fm[_STRIDE_Y] + x * fm[_STRIDE_X])


@helper
def channel(fm: Any, c: int) -> int:
    """Byte offset of channel c within a pixel."""
    if fm[_NHCWB16]:
        return i64((c >> 4) * fm[_STRIDE_C] + (c & 15) * fm[_ELEMENT_SIZE])
    return i64(c * fm[_ELEMENT_SIZE])


@helper
def _element(memory: Any, at: int, size: int, signed: int) -> int:
    value = i64(memory[at])
    if size > 1:
        value |= i64(memory[at + 1]) << 8
    if size > 2:
        value |= i64(memory[at + 2]) << 16 | i64(memory[at + 3]) << 24
    if signed:
        sign = i64(1) << (8 * size - 1)
        value = (value ^ sign) - sign
    return value


@kernel("int64(uint8[::1], int64[::1], int64[:, :, ::1])")
def load(memory: ByteArray, fm: Int64Array, out: Int64Array) -> int:
    """out[y, x, c] = the elements, as numbers."""
    height, width, depth = out.shape
    size = fm[_ELEMENT_SIZE]
    signed = fm[_SIGNED]
    for y in range(height):
        for x in range(width):
            at = pixel(fm, y, x)
            if size == 1:
                for block in range(0, depth, 16):
                    start = at + channel(fm, block)
                    for c in range(min(16, depth - block)):
                        value = memory[start + c]
                        out[y, x, block + c] = i64(np.int8(value)) if signed else i64(value)
            else:
                for c in range(depth):
                    out[y, x, c] = _element(memory, at + channel(fm, c), size, signed)
    return 0


@kernel("int64(uint8[::1], int64[::1], int32[:, :, ::1])")
def store(memory: ByteArray, fm: Int64Array, values: Int32Array) -> int:
    """Write values[y, x, c], which fit the element size."""
    height, width, depth = values.shape
    size = fm[_ELEMENT_SIZE]
    for y in range(height):
        for x in range(width):
            at = pixel(fm, y, x)
            if size == 1 and not fm[_NHCWB16]:
                for c in range(depth):
                    memory[at + c] = values[y, x, c] & 0xFF
            else:
                for c in range(depth):
                    value = values[y, x, c]
                    to = at + channel(fm, c)
                    for b in range(size):
                        memory[to + b] = (value >> (8 * b)) & 0xFF
    return 0


@kernel("int64(int64[:, :, ::1], int64, int64, int64[:, :, ::1])")
def upscale(values: Int64Array, zeros: int, fill: int, out: Int64Array) -> int:
    """out is values x 2: each pixel repeated, or (zeros) only its even positions set, `fill` elsewhere."""
    height, width, depth = out.shape
    for y in range(height):
        for x in range(width):
            if zeros and (y & 1 or x & 1):
                for c in range(depth):
                    out[y, x, c] = fill
            else:
                for c in range(depth):
                    out[y, x, c] = values[y >> 1, x >> 1, c]
    return 0


_copy_blocks = simd.copy_blocks()


@helper
def _gather_row(
    memory: Any, at: int, fm: Any, pixels: int, depth: int, flip: int, out: Any, to: int, lanes: int
) -> None:
    """`pixels` of one tile's row from byte `at` on, into the flat `out` from `to` on."""
    blocks = depth >> 4
    block_step = fm[_STRIDE_C] if fm[_NHCWB16] else i64(16)
    source, target = memory.ctypes.data + at, out.ctypes.data + to
    if blocks:
        _copy_blocks(target, lanes, i64(16), source, fm[_STRIDE_X], block_step, pixels, blocks, flip)
    rest = depth & 15
    if rest:
        first = at + blocks * block_step
        for x in range(pixels):
            for c in range(rest):
                out[to + x * lanes + blocks * 16 + c] = memory[first + x * fm[_STRIDE_X] + c] ^ np.uint8(flip)


@kernel("int64(uint8[::1], int64[::1], int64, int64, int64, int64, int64, int64, int64, uint8[:, :, ::1])")
def gather_bytes(
    memory: ByteArray,
    fm: Int64Array,
    height: int,
    width: int,
    depth: int,
    scale: int,
    top: int,
    left: int,
    fill: int,
    out: ByteArray,
) -> int:
    """8-bit elements as unsigned bytes into the padded `out`; int8 is offset by 128.

    `height` and `width` are those after upscaling, `scale` 0 none, 1 nearest, 2 zero-insert; everything
    of `out` that is not the feature map (borders, surplus channels) becomes `fill`.
    """
    flip = i64(0x80) if fm[_SIGNED] else i64(0)
    rows, columns, lanes = out.shape
    flat = out.reshape(-1)
    if rows != height or columns != width or lanes != depth or scale == 2:
        flat[:] = fill
    for iy in range(height):
        to = ((iy + top) * columns + left) * lanes
        if scale == 0:
            first = min(width, fm[_WIDTH0])
            _gather_row(memory, pixel(fm, iy, 0), fm, first, depth, flip, flat, to, lanes)
            if first < width:
                at = pixel(fm, iy, first)
                _gather_row(memory, at, fm, width - first, depth, flip, flat, to + first * lanes, lanes)
            continue
        for ix in range(width):
            if scale == 1 or (iy & 1 == 0 and ix & 1 == 0):
                at = pixel(fm, iy >> 1, ix >> 1)
                _gather_row(memory, at, fm, i64(1), depth, flip, flat, to + ix * lanes, lanes)
    return 0
