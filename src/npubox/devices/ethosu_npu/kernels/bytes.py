# SPDX-License-Identifier: Apache-2.0
"""Convolution and depthwise convolution of 8-bit elements, fused with scaling, table and store.

The IFM is a padded byte image (`gather_bytes`: int8 offset by 128, borders at the zero point), weights
are signed bytes. Whoever calls has proved that every finished sum fits int32; on the way sums may wrap.
The inner loops are `npubox.devices.simd`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from npubox.devices import simd
from npubox.devices.ethosu_npu.kernels.feature_maps import Map, pixel
from npubox.devices.jit import helper, i64, kernel
from npubox.devices.simd import LANES, PARAMETER_BYTES, Lane

ByteArray = npt.NDArray[np.uint8]
Int8Array = npt.NDArray[np.int8]
Int64Array = npt.NDArray[np.int64]

# Pixels of a tile by its number of vectors, and channels of the widest tile: what fits the registers.
ROWS = (0, 14, 12, 8, 6) if simd.VNNI else (0, 4, 4, 4, 4)
BLOCK = 4 * LANES if simd.VNNI else LANES
_ROWS1, _ROWS2, _ROWS3, _ROWS4 = ROWS[1:]
MAX_ROWS = max(ROWS)

_NHCWB16, _STRIDE_C, _STRIDE_X = int(Map.NHCWB16), int(Map.STRIDE_C), int(Map.STRIDE_X)
_WIDTH0 = int(Map.WIDTH0)


def pack_parameters(
    bias: Int64Array, scale: Int64Array, shift: Int64Array, extra: Int64Array, offset: Int64Array
) -> ByteArray:
    """The constants of every channel as the inner loops want them, uint8[vectors * PARAMETER_BYTES].

    `bias` counts modulo 2^32; 0 <= `scale` < 2^31; `extra` is the double rounding's term (facts §6).
    """
    vectors = -(-bias.size // LANES)

    def lanes(values: Int64Array) -> Int64Array:
        padded = np.zeros(vectors * LANES, np.int64)
        padded[: values.size] = values
        return padded.reshape(vectors, LANES)

    half = np.where(shift > 0, np.int64(1) << np.maximum(shift - 1, 0), 0)
    words = np.zeros((vectors, len(Lane), 8), np.int64)
    for lane, values in (
        (Lane.SCALE0, scale),
        (Lane.ABOVE0, half + extra),
        (Lane.BELOW0, half - extra),
        (Lane.SHIFT0, shift),
    ):
        words[:, lane] = lanes(values)[:, 0::2]
        words[:, lane + 1] = lanes(values)[:, 1::2]
    for lane, values in ((Lane.BIAS, bias), (Lane.OFFSET, offset)):
        words[:, lane] = lanes(values).astype(np.int32).view(np.int64)
    return words.reshape(-1).view(np.uint8)


_tile1, _tile2 = simd.tile(ROWS[1], 1), simd.tile(ROWS[2], 2)
_tile3, _tile4 = simd.tile(ROWS[3], 3), simd.tile(ROWS[4], 4)
_depthwise_row = simd.depthwise_row()
_sum_bytes = simd.sum_bytes()


@helper
def _tile(
    image: Any,
    pixels: Any,
    segments: Any,
    length: int,
    weights: Any,
    start: int,
    vectors: int,
    parameters: Any,
    first: int,
    windows: Any,
    outputs: Any,
    block_stride: int,
    last_mask: int,
    zero: int,
    low: int,
    high: int,
) -> None:
    x, at, seg = image.ctypes.data, pixels.ctypes.data, segments.ctypes.data
    w, out, count = weights.ctypes.data + start, outputs.ctypes.data, i64(segments.shape[0])
    par = parameters.ctypes.data + first // LANES * PARAMETER_BYTES
    win = windows.ctypes.data
    if vectors == 4:
        _tile4(x, at, seg, count, length, w, par, win, out, block_stride, last_mask, zero, low, high)
    elif vectors == 3:
        _tile3(x, at, seg, count, length, w, par, win, out, block_stride, last_mask, zero, low, high)
    elif vectors == 2:
        _tile2(x, at, seg, count, length, w, par, win, out, block_stride, last_mask, zero, low, high)
    else:
        _tile1(x, at, seg, count, length, w, par, win, out, block_stride, last_mask, zero, low, high)


@helper
def _row(
    image: Any,
    start: int,
    step: int,
    pixels: int,
    taps: Any,
    weights: Any,
    second: Any,
    parameters: Any,
    vector: int,
    output: int,
    output_step: int,
    mask: int,
    zero: int,
    low: int,
    high: int,
) -> None:
    groups = i64(taps.shape[0] // 4)
    plane = vector * groups * 4 * LANES
    more = second.ctypes.data + plane if second.shape[0] else i64(0)
    _depthwise_row(
        image.ctypes.data + start,
        step,
        pixels,
        taps.ctypes.data,
        groups,
        weights.ctypes.data + plane,
        more,
        parameters.ctypes.data + vector * PARAMETER_BYTES,
        output,
        output_step,
        mask,
        zero,
        low,
        high,
    )


@helper
def _write(
    memory: Any, at: int, fm: Any, first: int, count: int, scratch: Any, start: int, table: Any, offset: int
) -> None:
    """Channels first .. first + count - 1 of the pixel at `at`, through the table if there is one."""
    for c in range(count):
        value = scratch[start + c]
        if table.shape[0]:
            index = i64(np.int8(value)) if offset else i64(value)
            value = table[index + offset]
        if fm[_NHCWB16]:
            memory[at + ((first + c) >> 4) * fm[_STRIDE_C] + ((first + c) & 15)] = value
        else:
            memory[at + first + c] = value


@kernel(
    "int64(uint8[:, :, ::1], int64[::1], int64, int64, int64, int64, int64, int64, int8[::1], uint8[::1],"
    " int64, boolean, int64, int64, int64, uint8[::1], int64, uint8[::1], int64[::1])"
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
    parameters: ByteArray,
    depth: int,
    offset_weights: bool,
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
    for each block of up to 64 channels int8[words][channels rounded up to 16][4]. `offset_weights`: the
    parameters' OFFSETs times the window's sum count too. A table of 256 bytes maps the clamped result.
    """
    flat = image.reshape(-1)
    row_bytes = image.shape[1] * image.shape[2]
    pixels = np.empty(MAX_ROWS, np.int64)
    outputs = np.empty(MAX_ROWS, np.int64)
    windows = np.zeros(MAX_ROWS, np.int32)
    scratch = np.empty(MAX_ROWS * BLOCK, np.uint8)
    window_sums = np.zeros(last_pixel - first_pixel if offset_weights else 0, np.int64)
    part = np.zeros(1, np.int64)
    for p in range(window_sums.shape[0]):
        y = (first_pixel + p) // width
        x = first_pixel + p - y * width
        at = flat.ctypes.data + y * stride_y * row_bytes + x * stride_x * image.shape[2]
        for s in range(segments.shape[0]):
            _sum_bytes(at + segments[s], length, part.ctypes.data)
            window_sums[p] += part[0]
    direct = table.shape[0] == 0
    start = 0
    for first in range(0, depth, BLOCK):
        count = min(BLOCK, depth - first)
        vectors = (count + LANES - 1) // LANES
        last_mask = (1 << (count - LANES * (vectors - 1))) - 1
        block_stride = i64(LANES)
        rows = _ROWS1
        if vectors == 4:
            rows = _ROWS4
        elif vectors == 3:
            rows = _ROWS3
        elif vectors == 2:
            rows = _ROWS2
        if direct and ofm[_NHCWB16]:
            block_stride = ofm[_STRIDE_C]
        for p in range(first_pixel, last_pixel, rows):
            valid = min(rows, last_pixel - p)
            for i in range(rows):
                q = p + min(i, valid - 1)
                y = q // width
                pixels[i] = y * stride_y * row_bytes + (q - y * width) * stride_x * image.shape[2]
                if direct:
                    at = memory.ctypes.data + pixel(ofm, y, q - y * width)
                    outputs[i] = at + (first // LANES * ofm[_STRIDE_C] if ofm[_NHCWB16] else first)
                else:
                    outputs[i] = scratch.ctypes.data + i * BLOCK
                if offset_weights:
                    windows[i] = window_sums[q - first_pixel]
            _tile(
                flat,
                pixels,
                segments,
                length,
                weights,
                start,
                vectors,
                parameters,
                first,
                windows,
                outputs,
                block_stride,
                last_mask,
                zero,
                low,
                high,
            )
            if not direct:
                for i in range(valid):
                    y = (p + i) // width
                    at = pixel(ofm, y, p + i - y * width)
                    _write(memory, at, ofm, first, count, scratch, i * BLOCK, table, table_offset)
        start += segments.shape[0] * length * 4 * LANES * vectors
    return 0


@kernel(
    "int64(uint8[:, :, ::1], int64[::1], int64, int64, int64, int64, int64, int8[::1], int8[::1], uint8[::1],"
    " int64, int64, int64, int64, uint8[::1], int64, uint8[::1], int64[::1])"
)
def depthwise(
    image: ByteArray,
    taps: Int64Array,
    stride_y: int,
    stride_x: int,
    width: int,
    first_row: int,
    last_row: int,
    weights: Int8Array,
    second: Int8Array,
    parameters: ByteArray,
    depth: int,
    zero: int,
    low: int,
    high: int,
    table: ByteArray,
    table_offset: int,
    memory: ByteArray,
    ofm: Int64Array,
) -> int:
    """Output rows first_row .. last_row - 1.

    `taps`: byte offsets of the window's elements from its first, padded to a multiple of 4. `weights`
    int8[vectors][taps / 4][16][4]; `second`, if not empty, is added to them (9-bit weights).
    """
    flat = image.reshape(-1)
    row_bytes = image.shape[1] * image.shape[2]
    step = stride_x * image.shape[2]
    direct = table.shape[0] == 0
    scratch = np.empty(width * LANES, np.uint8)
    for y in range(first_row, last_row):
        for x in range(0, width, max(1, min(width, ofm[_WIDTH0]))):
            columns = min(width - x, ofm[_WIDTH0]) if x == 0 else width - x
            if x > 0 and x != ofm[_WIDTH0]:
                break
            at = pixel(ofm, y, x)
            for vector in range((depth + LANES - 1) // LANES):
                first = vector * LANES
                count = min(LANES, depth - first)
                output = scratch.ctypes.data
                output_step = i64(LANES)
                if direct:
                    output = memory.ctypes.data + at
                    output += vector * ofm[_STRIDE_C] if ofm[_NHCWB16] else first
                    output_step = ofm[_STRIDE_X]
                _row(
                    flat,
                    y * stride_y * row_bytes + x * step + first,
                    step,
                    columns,
                    taps,
                    weights,
                    second,
                    parameters,
                    vector,
                    output,
                    output_step,
                    (1 << count) - 1,
                    zero,
                    low,
                    high,
                )
                if not direct:
                    for i in range(columns):
                        to = at + i * ofm[_STRIDE_X]
                        _write(memory, to, ofm, first, count, scratch, i * LANES, table, table_offset)
    return 0


_MAP = "uint8[::1], int64[::1]"


@helper
def _offset(fm: Any, c: int) -> int:
    return i64((c >> 4) * fm[_STRIDE_C] + (c & 15)) if fm[_NHCWB16] else c


@kernel(f"int64({_MAP}, uint8[::1], {_MAP}, int64, int64, int64)")
def map_elements(
    source: ByteArray,
    ifm: Int64Array,
    table: ByteArray,
    memory: ByteArray,
    ofm: Int64Array,
    height: int,
    width: int,
    depth: int,
) -> int:
    """OFM byte = table[IFM byte], element by element."""
    for y in range(height):
        for x in range(width):
            at, to = pixel(ifm, y, x), pixel(ofm, y, x)
            for c in range(0, depth, LANES):
                first, then = at + _offset(ifm, c), to + _offset(ofm, c)
                for i in range(min(LANES, depth - c)):
                    memory[then + i] = table[source[first + i]]
    return 0


@kernel(f"int64({_MAP}, {_MAP}, int64, int64, int64, uint8[::1], {_MAP}, int64, int64, int64)")
def map_pairs(
    source: ByteArray,
    ifm: Int64Array,
    source2: ByteArray,
    ifm2: Int64Array,
    step_y: int,
    step_x: int,
    step_c: int,
    table: ByteArray,
    memory: ByteArray,
    ofm: Int64Array,
    height: int,
    width: int,
    depth: int,
) -> int:
    """OFM byte = table[256 * IFM byte + IFM2 byte]; a step of 0 broadcasts IFM2 in that dimension."""
    for y in range(height):
        for x in range(width):
            at, to = pixel(ifm, y, x), pixel(ofm, y, x)
            at2 = pixel(ifm2, y * step_y, x * step_x)
            for c in range(0, depth, LANES):
                first, then = at + _offset(ifm, c), to + _offset(ofm, c)
                second = at2 + _offset(ifm2, c * step_c)
                for i in range(min(LANES, depth - c)):
                    index = i64(source[first + i]) << 8 | i64(source2[second + i * step_c])
                    memory[then + i] = table[index]
    return 0
