# SPDX-License-Identifier: Apache-2.0
"""Convolution and depthwise convolution of 8-bit elements, fused with scaling, table and store.

The IFM is a padded byte image (`gather_bytes`: int8 offset by 128, borders at the zero point), weights
are signed bytes; whoever calls has proved that every sum fits int32. Where the CPU has no AVX512-VNNI
the same tiles are computed by a plain loop.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from npubox.devices import vnni
from npubox.devices.ethosu_npu.kernels.feature_maps import Map, pixel
from npubox.devices.jit import helper, i64, kernel

ByteArray = npt.NDArray[np.uint8]
Int8Array = npt.NDArray[np.int8]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]

LANES = 16
ROWS = (0, 14, 12, 8, 6)  # pixels of a tile by its number of 16-channel vectors
MAX_ROWS = 14
BLOCK = 64

_NHCWB16, _STRIDE_C = int(Map.NHCWB16), int(Map.STRIDE_C)

if vnni.AVAILABLE:
    _tile1, _tile2 = vnni.tile(ROWS[1], 1), vnni.tile(ROWS[2], 2)
    _tile3, _tile4 = vnni.tile(ROWS[3], 3), vnni.tile(ROWS[4], 4)

    @helper
    def _tile(
        image: Any, pixels: Any, segments: Any, length: int, weights: Any, start: int, vectors: int, sums: Any
    ) -> None:
        x, at, seg = image.ctypes.data, pixels.ctypes.data, segments.ctypes.data
        w, out, count = weights.ctypes.data + start, sums.ctypes.data, i64(segments.shape[0])
        if vectors == 4:
            _tile4(x, at, seg, count, length, w, out)
        elif vectors == 3:
            _tile3(x, at, seg, count, length, w, out)
        elif vectors == 2:
            _tile2(x, at, seg, count, length, w, out)
        else:
            _tile1(x, at, seg, count, length, w, out)

else:

    @helper
    def _tile(
        image: Any, pixels: Any, segments: Any, length: int, weights: Any, start: int, vectors: int, sums: Any
    ) -> None:
        columns = LANES * vectors
        for row in range(ROWS[vectors]):
            for j in range(columns):
                sums[row * columns + j] = 0
            w = start
            for s in range(segments.shape[0]):
                at = pixels[row] + segments[s]
                for k in range(4 * length):
                    x = np.int32(image[at + k])
                    base = w + (k >> 2) * 4 * columns + (k & 3)
                    for j in range(columns):
                        sums[row * columns + j] += x * np.int32(weights[base + 4 * j])
                w += 4 * length * columns


@helper
def _finish(value: int, scale: int, shift: int, half: int, extra: int, zero: int, low: int, high: int) -> int:
    """§6 of the facts for sums that fit int32 and scales below 2^31: natural rounding has extra = 0."""
    result = ((value * scale + (half + extra if value >= 0 else half - extra)) >> shift) + zero
    return min(max(result, low), high)


@helper
def _write(memory: Any, at: int, fm: Any, first: int, count: int, row: Any) -> None:
    if fm[_NHCWB16]:
        for block in range(0, count, LANES):
            to = at + ((first + block) >> 4) * fm[_STRIDE_C]
            for c in range(min(LANES, count - block)):
                memory[to + c] = row[block + c]
    else:
        to = at + first
        for c in range(count):
            memory[to + c] = row[c]


@kernel(
    "int64(uint8[:, :, ::1], int64[::1], int64, int64, int64, int64, int64, int64, int8[::1], int64[:, ::1],"
    " int64, int64, int64, uint8[::1], int64, uint8[::1], int64[::1])"
)
def convolve(
    image: ByteArray,
    segments: Int64Array,
    length: int,
    stride_y: int,
    stride_x: int,
    width: int,
    first_pixel: int,
    last_pixel: int,
    weights: Int8Array,
    channels: Int64Array,
    zero: int,
    low: int,
    high: int,
    table: ByteArray,
    table_offset: int,
    memory: ByteArray,
    ofm: Int64Array,
) -> int:
    """Output pixels first_pixel .. last_pixel - 1 (row-major over `width` columns), all channels.

    `segments`: byte offsets of the window's contiguous pieces, `length` 32-bit words each. `weights`:
    for each block of up to 64 channels int8[words][channels rounded up to 16][4]. `channels`: rows bias,
    scale, shift, half, extra, weight offset. A non-empty `table` of 256 bytes maps the clamped result.
    """
    depth = channels.shape[1]
    flat = image.reshape(-1)
    row_bytes = image.shape[1] * image.shape[2]
    words = segments.shape[0] * length
    pixels = np.empty(MAX_ROWS, np.int64)
    sums = np.empty(MAX_ROWS * BLOCK, np.int32)
    row = np.empty(BLOCK, np.uint8)
    windows = np.zeros(MAX_ROWS, np.int64)
    offset_weights = False
    for c in range(depth):
        if channels[5, c] != 0:
            offset_weights = True
    start = 0
    for first in range(0, depth, BLOCK):
        count = min(BLOCK, depth - first)
        vectors = (count + LANES - 1) // LANES
        columns = LANES * vectors
        rows = MAX_ROWS
        if vectors == 4:
            rows = 6
        elif vectors == 3:
            rows = 8
        elif vectors == 2:
            rows = 12
        for p in range(first_pixel, last_pixel, rows):
            valid = min(rows, last_pixel - p)
            for i in range(rows):
                q = p + min(i, valid - 1)
                y = q // width
                pixels[i] = y * stride_y * row_bytes + (q - y * width) * stride_x * image.shape[2]
            _tile(flat, pixels, segments, length, weights, start, vectors, sums)
            if offset_weights:
                for i in range(valid):
                    total = i64(0)
                    for s in range(segments.shape[0]):
                        at = pixels[i] + segments[s]
                        for k in range(4 * length):
                            total += flat[at + k]
                    windows[i] = total
            for i in range(valid):
                for j in range(count):
                    c = first + j
                    value = i64(sums[i * columns + j]) + channels[0, c] + channels[5, c] * windows[i]
                    result = _finish(
                        value, channels[1, c], channels[2, c], channels[3, c], channels[4, c], zero, low, high
                    )
                    row[j] = result & 0xFF
                if table.shape[0]:
                    for j in range(count):
                        signed = i64(np.int8(row[j])) if table_offset else i64(row[j])
                        row[j] = table[signed + table_offset]
                q = p + i
                y = q // width
                _write(memory, pixel(ofm, y, q - y * width), ofm, first, count, row)
        start += words * 4 * columns
    return 0


@kernel(
    "int64(uint8[:, :, ::1], int64, int64, int64, int64, int64, int64, int64, int64, int16[:, ::1],"
    " int64[:, ::1], int64, int64, int64, uint8[::1], int64, uint8[::1], int64[::1])"
)
def depthwise(
    image: ByteArray,
    kernel_w: int,
    stride_y: int,
    stride_x: int,
    dilation_y: int,
    dilation_x: int,
    width: int,
    first_row: int,
    last_row: int,
    weights: npt.NDArray[np.int16],
    channels: Int64Array,
    zero: int,
    low: int,
    high: int,
    table: ByteArray,
    table_offset: int,
    memory: ByteArray,
    ofm: Int64Array,
) -> int:
    """Output rows first_row .. last_row - 1; weights[tap, channel], channels as in `convolve`."""
    depth = channels.shape[1]
    taps = weights.shape[0]
    sums = np.empty(BLOCK, np.int32)
    row = np.empty(BLOCK, np.uint8)
    for y in range(first_row, last_row):
        for x in range(width):
            at = pixel(ofm, y, x)
            for first in range(0, depth, BLOCK):
                count = min(BLOCK, depth - first)
                for j in range(count):
                    sums[j] = 0
                for tap in range(taps):
                    ky = tap // kernel_w
                    iy = y * stride_y + ky * dilation_y
                    ix = x * stride_x + (tap - ky * kernel_w) * dilation_x
                    for j in range(count):
                        sums[j] += np.int32(image[iy, ix, first + j]) * np.int32(weights[tap, first + j])
                for j in range(count):
                    c = first + j
                    result = _finish(
                        i64(sums[j]) + channels[0, c],
                        channels[1, c],
                        channels[2, c],
                        channels[3, c],
                        channels[4, c],
                        zero,
                        low,
                        high,
                    )
                    row[j] = result & 0xFF
                if table.shape[0]:
                    for j in range(count):
                        signed = i64(np.int8(row[j])) if table_offset else i64(row[j])
                        row[j] = table[signed + table_offset]
                _write(memory, at, ofm, first, count, row)
    return 0
