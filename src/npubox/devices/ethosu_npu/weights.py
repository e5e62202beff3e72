# SPDX-License-Identifier: Apache-2.0
"""Weight streams of the U55 and U65: Arm's MLW bit stream, and the order of the weights in it.

Source: the project's facts, ethosu-npu.md §5.2 (bit stream) and §5.4 (order).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from npubox.devices.ethosu_npu.faults import WeightsDamaged
from npubox.devices.jit import helper, i64, kernel

Int16Array = npt.NDArray[np.int16]
ByteArray = npt.NDArray[np.uint8]

_DAMAGED = {
    -1: "the stream ends inside a slice",
    -2: "a slice without a palette follows the start or an end marker",
    -3: "it holds more weights than the operation has",
    -4: "a slice claims a reserved zero-run mode",
    -5: "a slice without zero runs or weights does not end",
    -6: "it holds a weight of more than 9 bits",
}
END_MARKER = 7
NO_ZERO_RUNS = 6
UNCOMPRESSED = 7
LARGEST = 255
MISPLACED = -1


@helper
def _bits(data: Any, position: int, count: int) -> int:
    """`count` bits from bit `position` on, least significant first; bits past the end read as 0."""
    value = 0
    byte = position >> 3
    have = 8 - (position & 7)
    value = (i64(data[byte]) >> (position & 7)) if byte < data.shape[0] else 0
    while have < count:
        byte += 1
        if byte < data.shape[0]:
            value |= i64(data[byte]) << have
        have += 8
    return value & ((1 << count) - 1)


@kernel("int64(uint8[::1], int16[::1])", "int64(Array(uint8, 1, 'C', readonly=True), int16[::1])")
def _decode(data: ByteArray, out: Int16Array) -> int:
    """Decode all slices into `out`; the number of weights, or a negative key of _DAMAGED."""
    total_bits = data.shape[0] * 8
    capacity = out.shape[0]
    position = 0
    produced = 0
    palette = np.zeros(32, np.int64)
    palette_size = 0
    palette_bits = 0
    offset = 0
    have_palette = False
    weights = np.zeros(32768 + 16, np.int64)
    zeros = np.zeros(32769 + 16, np.int64)
    while True:
        if position == total_bits:
            return produced
        if position + 3 > total_bits:
            return -1
        zdiv = _bits(data, position, 3)
        position += 3
        if zdiv == END_MARKER:
            position = min((position + 7) & ~7, total_bits)
            have_palette = False
            continue
        if zdiv == 4 or zdiv == 5:
            return -4
        zero_runs = zdiv != NO_ZERO_RUNS
        n = _bits(data, position, 15) + 1
        wdiv = _bits(data, position + 15, 3)
        truncated = _bits(data, position + 18, 1)
        new_palette = _bits(data, position + 19, 1)
        position += 20
        if new_palette:
            offset = _bits(data, position, 5)
            palette_size = _bits(data, position + 5, 5)
            if palette_size > 0:
                palette_size += 1
            palette_bits = _bits(data, position + 10, 3) + 2
            position += 13
            for i in range(palette_size):
                palette[i] = _bits(data, position, palette_bits)
                position += palette_bits
            have_palette = True
        elif not have_palette:
            return -2
        uncompressed = wdiv == UNCOMPRESSED
        width = wdiv
        if uncompressed:
            width = palette_bits
            if palette_size > 0:
                width = 0
                while (1 << width) < palette_size:
                    width += 1
        runs = n + new_palette if zero_runs else 0

        # Complete symbols so far (w_pos, z_pos), their unary parts, and the remainders still owed.
        w_pos = 0
        z_pos = 0
        w_count = 0
        z_count = 0
        owed_w = 0
        owed_z = 0
        while True:
            w_enabled = w_pos < n and (not zero_runs or w_pos - z_pos < 8)
            z_enabled = zero_runs and w_pos - z_pos >= 0 and z_pos < runs
            if not w_enabled and not z_enabled and w_pos < n:
                return -5
            w_before = w_pos
            z_before = z_pos
            wunary0 = 0
            if w_enabled and not uncompressed:
                wunary0 = _bits(data, position, 12)
                position += 12
            zunary = 0
            zlen = 8 if zdiv == 3 else 12
            if z_enabled:
                zunary = _bits(data, position, zlen)
                position += zlen
            if w_enabled:
                if uncompressed:
                    symbols = 8 if width > 5 else 12
                    if symbols > n - w_pos:
                        symbols = n - w_pos
                    for i in range(symbols):
                        weights[w_pos + i] = 0
                    w_pos += symbols
                else:
                    ones = 0
                    for i in range(12):
                        ones += (wunary0 >> i) & 1
                    wunary1 = _bits(data, position, ones)
                    position += ones
                    for i in range(12):
                        step = (wunary0 >> i) & 1
                        if step:
                            step += wunary1 & 1
                            wunary1 >>= 1
                        w_count += step
                        if step != 2 or truncated:
                            if w_pos < n:
                                weights[w_pos] = w_count
                                w_pos += 1
                            w_count = 0
            if z_enabled:
                for i in range(zlen):
                    if (zunary >> i) & 1:
                        z_count += 1
                    else:
                        if z_pos < runs:
                            zeros[z_pos] = z_count
                            z_pos += 1
                        z_count = 0
            # Remainders of the chunk before.
            for i in range(w_before - owed_w, w_before):
                if width > 0:
                    weights[i] = (weights[i] << width) + _bits(data, position, width)
                    position += width
            if zero_runs:
                for i in range(z_before - owed_z, z_before):
                    zeros[i] = (zeros[i] << zdiv) + _bits(data, position, zdiv)
                    position += zdiv
            owed_w = w_pos - w_before
            owed_z = z_pos - z_before
            if position > total_bits:
                return -1
            if not w_enabled and not z_enabled:
                break
        for i in range(n):
            if zero_runs and (i > 0 or new_palette):
                run = zeros[i - 1 + new_palette]
                if produced + run > capacity:
                    return -3
                for j in range(run):
                    out[produced + j] = 0
                produced += run
            index = weights[i]
            value = palette[index] if index < palette_size else index - palette_size + offset
            if value >> 1 > LARGEST:
                return -6
            if produced >= capacity:
                return -3
            out[produced] = -(value >> 1) if value & 1 else value >> 1
            produced += 1
        if zero_runs:
            run = zeros[runs - 1]
            if produced + run > capacity:
                return -3
            for j in range(run):
                out[produced + j] = 0
            produced += run


def decode_stream(data: ByteArray, count: int) -> Int16Array:
    """The `count` weights (int16, -255..255) of one core's stream, in stream order.

    Raises WeightsDamaged where the bytes do not decode to exactly `count` weights.
    """
    out = np.empty(count, np.int16)
    found = _decode(data, out)
    if found < 0:
        raise WeightsDamaged(f"its weight stream is damaged: {_DAMAGED[found]}")
    if found != count:
        raise WeightsDamaged(f"its weight stream holds {found} weights where the operation has {count}")
    return out


@dataclass(frozen=True)
class WeightOrder:
    """What decides the order of the weights in a stream. Kernel sizes are undilated."""

    kernel_height: int
    kernel_width: int
    ifm_depth: int
    ofm_depth: int
    ofm_block_depth: int
    dilation_y: int
    dilation_x: int
    part_kernel_first: bool
    depthwise: bool
    ifm_16bit: bool
    ofm_microblock: int
    cores: int

    def channels(self, core: int) -> int:
        """How many of the output channels this core computes (every `cores`-th one)."""
        return max(0, (self.ofm_depth - core + self.cores - 1) // self.cores)


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


_ORDER_TYPES = "int64(int64, int64, int64, int64, int64, int64, int64, boolean, boolean, int64, int64, int64"


@kernel(_ORDER_TYPES + ", int16[::1], int16[:, :, :, ::1], int64, int64)")
def _place(
    kernel_h: int,
    kernel_w: int,
    ifm_depth: int,
    ofm_depth: int,
    block_depth: int,
    sub_h: int,
    sub_w: int,
    part_kernel: bool,
    depthwise: bool,
    rounding: int,
    microblock: int,
    ifm_block: int,
    stream: Int16Array,
    out: npt.NDArray[np.int16],
    core: int,
    cores: int,
) -> int:
    """Walk the stream order and, if `stream` is not empty, fill out[o, ky, kx, i]. Returns the length.

    Returns MISPLACED if a weight stands where the order has padding: nobody knows what it would do.
    """
    at = 0
    fill = stream.shape[0] > 0
    for ofm_start in range(0, ofm_depth, block_depth):
        clipped_ofm = min(block_depth, ofm_depth - ofm_start)
        clipped_ofm = (clipped_ofm + microblock - 1) // microblock * microblock
        ifm_end = 1 if depthwise else ifm_depth
        for ifm_start in range(0, ifm_end, ifm_block):
            clipped_ifm = min(ifm_block, ifm_end - ifm_start)
            clipped_ifm = (clipped_ifm + 7) // 8 * 8
            for sub_y in range(0, kernel_h, sub_h):
                height = min(sub_h, kernel_h - sub_y)
                for sub_x in range(0, kernel_w, sub_w):
                    width = min(sub_w, kernel_w - sub_x)
                    elements = height * width
                    rounded = (elements + rounding - 1) // rounding * rounding
                    outer_end = clipped_ifm if part_kernel else 1
                    inner_end = 1 if part_kernel else ifm_block
                    if depthwise:
                        outer_end = 1
                        inner_end = 1
                    for ifm_outer in range(0, outer_end, 8):
                        for micro in range(0, clipped_ofm, microblock):
                            for element in range(rounded):
                                ky = sub_y + element // width
                                kx = sub_x + element % width
                                for ifm_inner in range(0, inner_end, 8):
                                    for o in range(microblock):
                                        channel = ofm_start + micro + o
                                        lanes = 1 if depthwise else 8
                                        if fill:
                                            for i in range(lanes):
                                                ifm = ifm_start + ifm_outer + ifm_inner + i
                                                if (
                                                    channel < ofm_depth
                                                    and element < elements
                                                    and ifm < ifm_end
                                                ):
                                                    out[channel * cores + core, ky, kx, ifm] = stream[at + i]
                                                elif stream[at + i] != 0:
                                                    return MISPLACED
                                        at += lanes
    return at


def _place_arguments(
    order: WeightOrder, core: int
) -> tuple[int, int, int, int, int, int, int, bool, bool, int, int, int]:
    block_depth = (order.ofm_block_depth + order.cores - 1 - core) // order.cores
    if order.depthwise:
        rounding = 4
    elif order.part_kernel_first:
        rounding = 2 if order.ifm_16bit else 4
    else:
        rounding = 1
    return (
        order.kernel_height,
        order.kernel_width,
        order.ifm_depth,
        order.channels(core),
        max(1, block_depth),
        max(1, 8 // order.dilation_y),
        max(1, 8 // order.dilation_x),
        order.part_kernel_first and not order.depthwise,
        order.depthwise,
        rounding,
        order.ofm_microblock,
        16 if order.part_kernel_first or order.ifm_16bit else 32,
    )


def read_weights(order: WeightOrder, streams: list[ByteArray]) -> Int16Array:
    """Decode one stream a core into weights[ofm channel, ky, kx, ifm channel], int16.

    Depthwise weights have one IFM channel. Raises WeightsDamaged.
    """
    ifm_depth = 1 if order.depthwise else order.ifm_depth
    out = np.zeros((order.ofm_depth, order.kernel_height, order.kernel_width, ifm_depth), np.int16)
    nothing = np.zeros(0, np.int16)
    for core in range(order.cores):
        if order.channels(core) == 0:
            continue
        arguments = _place_arguments(order, core)
        count = _place(*arguments, nothing, out, core, order.cores)
        stream = decode_stream(streams[core], count)
        if _place(*arguments, stream, out, core, order.cores) == MISPLACED:
            raise WeightsDamaged("its weight stream has a weight where the order of weights has padding")
    return out
