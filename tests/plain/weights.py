# SPDX-License-Identifier: Apache-2.0
"""Weight streams: the entropy code (facts §5.2) and the order of the weights in it (§5.4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

END_MARKER = 7
NO_ZERO_RUNS = 6
UNCOMPRESSED = 7
MAX_MAGNITUDE = 255
PADDING = bytes(64)  # more than the bits of one chunk, so that only the chunk's end needs a check
ONES = [value.bit_count() for value in range(1 << 12)]


class BadStream(Exception):  # noqa: N818
    """The bytes are no weight stream of the operation that uses them."""


@dataclass
class _Bits:
    """Bits, least significant first."""

    data: bytes
    position: int = 0
    windows: Ints = field(init=False)

    def __post_init__(self) -> None:
        raw = np.frombuffer(self.data + PADDING, np.uint8).astype(np.int64)
        self.windows = raw[:-3] | raw[1:-2] << 8 | raw[2:-1] << 16 | raw[3:] << 24

    @property
    def end(self) -> int:
        return len(self.data) * 8

    def take(self, count: int) -> int:
        value = int(self.windows[self.position >> 3]) >> (self.position & 7) & ((1 << count) - 1)
        self.position += count
        self.check()
        return value

    def check(self) -> None:
        if self.position > self.end:
            raise BadStream("the weight stream ends inside a slice")

    def gather(self, positions: Ints, count: int) -> Ints:
        values: Ints = self.windows[positions >> 3] >> (positions & 7) & ((1 << count) - 1)
        return values


@dataclass
class _Palette:
    values: Ints
    direct_offset: int
    bits: int


@dataclass
class _Chunks:
    """What a walk over the chunks of a slice found: unary words, and where each chunk's remainders are."""

    unary0: list[int] = field(default_factory=list)
    unary1: list[int] = field(default_factory=list)
    zero_unary: list[int] = field(default_factory=list)
    weight_counts: list[int] = field(default_factory=list)
    weight_positions: list[int] = field(default_factory=list)
    zero_counts: list[int] = field(default_factory=list)
    zero_positions: list[int] = field(default_factory=list)


def decode(data: bytes, expected: int) -> Ints:
    """All weights of a stream, which must be `expected` many. Raises BadStream."""
    bits = _Bits(data)
    pieces: list[Ints] = []
    total = 0
    palette: _Palette | None = None
    while bits.position < bits.end:
        zero_divisor = bits.take(3)
        if zero_divisor == END_MARKER:
            bits.position = bits.position + 7 & ~7
            palette = None
            continue
        if zero_divisor in (4, 5):
            raise BadStream(f"the weight stream has the unknown zero-run divisor {zero_divisor}")
        piece, palette = _slice(bits, zero_divisor, palette, expected - total)
        total += len(piece)
        pieces.append(piece)
    if total != expected:
        raise BadStream(f"the weight stream holds {total} weights where the operation needs {expected}")
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int64)


def _slice(bits: _Bits, zero_divisor: int, palette: _Palette | None, limit: int) -> tuple[Ints, _Palette]:
    count = bits.take(15) + 1
    divisor = bits.take(3)
    truncated = bool(bits.take(1))
    fresh = bits.take(1)
    if fresh:
        offset, size, width = bits.take(5), bits.take(5), bits.take(3) + 2
        size += size > 0
        palette = _Palette(np.array([bits.take(width) for _ in range(size)], np.int64), offset, width)
    if palette is None:
        raise BadStream("the weight stream's first slice has no palette")
    uncompressed = divisor == UNCOMPRESSED
    if uncompressed:
        divisor = (len(palette.values) - 1).bit_length() if len(palette.values) else palette.bits
    runs = count + fresh if zero_divisor != NO_ZERO_RUNS else 0
    chunks = _walk(bits, count, runs, divisor, uncompressed, truncated, zero_divisor)

    symbols = _remainders(bits, chunks.weight_counts, chunks.weight_positions, divisor)
    if not uncompressed:
        symbols = symbols + (_weight_unary(chunks, truncated)[:count] << divisor)
    direct = symbols - len(palette.values) + palette.direct_offset
    if len(palette.values):
        inside = np.minimum(symbols, len(palette.values) - 1)
        direct = np.where(symbols < len(palette.values), palette.values[inside], direct)
    weights = np.where(direct & 1, -(direct >> 1), direct >> 1)
    if np.abs(weights).max() > MAX_MAGNITUDE:
        raise BadStream("a weight needs more than 9 bits")
    if not runs:
        return weights, palette

    zeros = _remainders(bits, chunks.zero_counts, chunks.zero_positions, zero_divisor)
    zeros = zeros + (_zero_unary(chunks, zero_divisor)[:runs] << zero_divisor)
    length = count + int(zeros.sum())
    if length > limit:
        raise BadStream("the weight stream holds more weights than the operation needs")
    before = np.cumsum(zeros)[:count] if fresh else np.cumsum(zeros)[:count] - zeros
    spread = np.zeros(length, np.int64)
    spread[np.arange(count) + before] = weights
    return spread, palette


def _walk(
    bits: _Bits, count: int, runs: int, divisor: int, uncompressed: bool, truncated: bool, zero_divisor: int
) -> _Chunks:
    """Step over the chunks; only their lengths depend on what came before, the values can wait."""
    out = _Chunks()
    windows = bits.windows
    zero_width = 8 if zero_divisor == 3 else 12
    raw_symbols = 8 if divisor > 5 else 12
    w_pos = z_pos = w_before = z_before = 0
    p = bits.position
    while w_pos < count or z_pos < runs or w_before or z_before:
        w_on = w_pos < count and (not runs or w_pos - z_pos < 8)
        z_on = z_pos < runs and w_pos - z_pos >= 0
        w_now = z_now = ones = 0
        if w_on and not uncompressed:
            unary0 = int(windows[p >> 3]) >> (p & 7) & 0xFFF
            p += 12
            ones = ONES[unary0]
        if z_on:
            unary = int(windows[p >> 3]) >> (p & 7) & ((1 << zero_width) - 1)
            p += zero_width
            z_now = min(zero_width - ONES[unary], runs - z_pos)
            out.zero_unary.append(unary)
        if w_on and not uncompressed:
            unary1 = int(windows[p >> 3]) >> (p & 7) & ((1 << ones) - 1)
            p += ones
            out.unary0.append(unary0)
            out.unary1.append(unary1)
            w_now = min(12 if truncated else 12 - ONES[unary1], count - w_pos)
        elif w_on:
            w_now = min(raw_symbols, count - w_pos)
        if w_before:
            out.weight_counts.append(w_before)
            out.weight_positions.append(p)
            p += w_before * divisor
        if z_before:
            out.zero_counts.append(z_before)
            out.zero_positions.append(p)
            p += z_before * zero_divisor
        w_pos, z_pos, w_before, z_before = w_pos + w_now, z_pos + z_now, w_now, z_now
        bits.position = p
        bits.check()
    return out


def _remainders(bits: _Bits, counts: list[int], positions: list[int], width: int) -> Ints:
    count = np.array(counts, np.int64)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return bits.gather(np.repeat(np.array(positions, np.int64), count) + within * width, width)


def _sums_up_to(steps: Ints, ends: npt.NDArray[np.bool_]) -> Ints:
    """The sum of the steps of each symbol, a symbol being what lies between two ends."""
    return np.diff(np.cumsum(steps)[ends], prepend=0)


def _weight_unary(chunks: _Chunks, truncated: bool) -> Ints:
    first = np.array(chunks.unary0, np.int64)[:, np.newaxis] >> np.arange(12) & 1
    rank = np.cumsum(first, axis=1) - first
    second = np.array(chunks.unary1, np.int64)[:, np.newaxis] >> rank & 1
    steps = (first * (1 + second)).ravel()
    return _sums_up_to(steps, (steps != 2) | truncated)


def _zero_unary(chunks: _Chunks, zero_divisor: int) -> Ints:
    width = 8 if zero_divisor == 3 else 12
    steps = (np.array(chunks.zero_unary, np.int64)[:, np.newaxis] >> np.arange(width) & 1).ravel()
    return _sums_up_to(steps, steps == 0)


@dataclass(frozen=True)
class Order:
    """What fixes the order of one core's stream: its channels, the kernel (undilated), the block depths."""

    ofm_depth: int
    ifm_depth: int
    kernel: tuple[int, int]
    dilation: tuple[int, int]
    block_depth: int
    microblock: int
    ifm_bits: int
    depthwise: bool
    part_kernel: bool

    def runs(self) -> Iterator[tuple[Ints, Ints, Ints, Ints]]:
        """Stretches of the stream: coordinates o, y, x, i in stream order, -1 where it is padding."""
        ifm_block = 16 if self.part_kernel or self.ifm_bits == 16 else 32
        element_step = 4 if self.depthwise else 1
        if self.part_kernel:
            element_step = 4 if self.ifm_bits == 8 else 2
        for block in range(0, self.ofm_depth, self.block_depth):
            block_end = min(block + self.block_depth, self.ofm_depth)
            o = self._up(np.arange(block, block_end), self.microblock).reshape(-1, self.microblock)
            for ifm in range(0, 1 if self.depthwise else self.ifm_depth, ifm_block):
                for y, x in self._sub_kernels(element_step):
                    for i in self._ifm_units(ifm, ifm_block):
                        # axes: microblock, kernel element, inner IFM unit, o, i
                        shape = np.broadcast_shapes((len(o), len(y), len(i), o.shape[1], i.shape[1]))
                        yield (
                            np.broadcast_to(o[:, None, None, :, None], shape).ravel(),
                            np.broadcast_to(y[None, :, None, None, None], shape).ravel(),
                            np.broadcast_to(x[None, :, None, None, None], shape).ravel(),
                            np.broadcast_to(i[None, None, :, None, :], shape).ravel(),
                        )

    def _sub_kernels(self, element_step: int) -> Iterator[tuple[Ints, Ints]]:
        height, width = 8 // self.dilation[0], 8 // self.dilation[1]
        for top in range(0, self.kernel[0], height):
            for left in range(0, self.kernel[1], width):
                y, x = np.mgrid[
                    top : min(top + height, self.kernel[0]), left : min(left + width, self.kernel[1])
                ]
                yield self._up(y.ravel(), element_step), self._up(x.ravel(), element_step)

    def _ifm_units(self, start: int, block: int) -> list[Ints]:
        """Steps of the outer IFM loop, each (inner steps, channels)."""
        if self.depthwise:
            return [np.zeros((1, 1), np.int64)]
        if not self.part_kernel:
            full = np.arange(start, start + block)
            return [np.where(full < self.ifm_depth, full, -1).reshape(-1, 8)]
        clipped = self._up(np.arange(start, min(start + block, self.ifm_depth)), 8)
        return [unit.reshape(1, 8) for unit in clipped.reshape(-1, 8)]

    @staticmethod
    def _up(values: Ints, step: int) -> Ints:
        """Padded with -1 to a multiple of `step`."""
        missing = -len(values) % step
        return np.concatenate([values, np.full(missing, -1, np.int64)])


def unpack(data: bytes, order: Order) -> Ints:
    """Weights (o, ky, kx, i) of one core's stream; depthwise (o, ky, kx, 1). Raises BadStream."""
    runs = list(order.runs())
    o, y, x, i = (np.concatenate([run[axis] for run in runs]) for axis in range(4))
    stream = decode(data, len(o))
    real = (o >= 0) & (y >= 0) & (i >= 0)
    if stream[~real].any():
        raise BadStream("a weight stands where the stream must be padded with zeros")
    depth = 1 if order.depthwise else order.ifm_depth
    weights = np.zeros((order.ofm_depth, *order.kernel, depth), np.int64)
    weights[o[real], y[real], x[real], i[real]] = stream[real]
    return weights
