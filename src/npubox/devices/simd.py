# SPDX-License-Identifier: Apache-2.0
"""The inner loops of the byte kernels as LLVM vector code, for Numba kernels to call.

A tile of pixels by channels is accumulated in registers (sums of products of unsigned by signed bytes,
exact modulo 2^32), requantised there and stored as bytes. Where the CPU has AVX512-VNNI the products
are its vpdpbusd, which does not saturate; elsewhere the same in 16-bit multiplications, which LLVM
turns into what the CPU has. All arguments are 64-bit integers; addresses are real addresses, so
whoever calls has checked them, and has proved that every finished sum fits int32.

A *vector* is 16 channels. Its requantisation is `PARAMETER_BYTES` of constants, see `Lane`.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

PORTABLE = "NPUBOX_PORTABLE"  # set to 1: do without these instructions, as on a CPU that lacks them
_FEATURES = llvm.get_host_cpu_features() if platform.machine() == "x86_64" else {}
VNNI = os.environ.get(PORTABLE, "0") in ("", "0") and all(
    _FEATURES.get(name, False) for name in ("avx512vnni", "avx512bw", "avx512dq", "avx512vl")
)

LANES = 16
ZMM = 64


class Lane(IntEnum):
    """Where each constant lies in a vector's parameters, in units of 64 bytes.

    BIAS and OFFSET are int32[16]; the others int64[8], of the even lanes (0) and of the odd ones (1).
    ABOVE and BELOW are the rounding terms of sums >= 0 and < 0.
    """

    BIAS = 0
    SCALE0 = 1
    SCALE1 = 2
    ABOVE0 = 3
    ABOVE1 = 4
    BELOW0 = 5
    BELOW1 = 6
    SHIFT0 = 7
    SHIFT1 = 8
    OFFSET = 9


PARAMETER_BYTES = ZMM * len(Lane)

_I1, _I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
_V16I32, _V8I64 = ir.VectorType(_I32, LANES), ir.VectorType(_I64, LANES // 2)
_V32I16, _V32I32 = ir.VectorType(_I16, 2 * LANES), ir.VectorType(_I32, 2 * LANES)
_V64I8, _V16I8 = ir.VectorType(_I8, ZMM), ir.VectorType(_I8, LANES)
_V16I1 = ir.VectorType(_I1, LANES)


class _Code:
    """An IR builder with the few things that the loops are made of."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.b = builder

    def const(self, value: int) -> ir.Value:
        return ir.Constant(_I64, value)

    def plus(self, address: ir.Value, offset: int | ir.Value) -> ir.Value:
        return self.b.add(address, self.const(offset) if isinstance(offset, int) else offset)

    def load(self, address: ir.Value, type_: ir.Type) -> ir.Value:
        return self.b.load(self.b.inttoptr(address, type_.as_pointer()), align=1)

    def word(self, table: ir.Value, index: int | ir.Value) -> ir.Value:
        """table[index] of int64."""
        if isinstance(index, int):
            return self.load(self.plus(table, 8 * index), _I64)
        return self.load(self.plus(table, self.b.mul(index, self.const(8))), _I64)

    def splat(self, value: ir.Value) -> ir.Value:
        """A 32-bit value in all 16 lanes."""
        undefined = ir.Constant(_V16I32, ir.Undefined)
        one = self.b.insert_element(undefined, value, ir.Constant(_I32, 0))
        return self.b.shuffle_vector(one, undefined, ir.Constant(_V16I32, [0] * LANES))

    def splat64(self, value: ir.Value) -> ir.Value:
        return self.splat(self.b.trunc(value, _I32))

    def variable(self, value: ir.Value) -> ir.Value:
        """A place in the function's entry, so that loops do not grow the stack, set to `value` here."""
        with self.b.goto_entry_block():
            place = self.b.alloca(value.type)
        self.b.store(value, place)
        return place

    def counted(self, count: ir.Value, body: Callable[[ir.Value], None]) -> None:
        """for index in range(count): body(index)"""
        index = self.variable(self.const(0))
        head, inside, after = (self.b.append_basic_block() for _ in range(3))
        self.b.branch(head)
        self.b.position_at_end(head)
        self.b.cbranch(self.b.icmp_signed("<", self.b.load(index), count), inside, after)
        self.b.position_at_end(inside)
        body(self.b.load(index))
        self.b.store(self.plus(self.b.load(index), 1), index)
        self.b.branch(head)
        self.b.position_at_end(after)

    def dot(self, total: ir.Value, unsigned: ir.Value, signed: ir.Value) -> ir.Value:
        """total[i] += sum of 4 products of bytes."""
        if not VNNI:
            return self._portable_dot(total, unsigned, signed)
        name = "llvm.x86.avx512.vpdpbusd.512"
        function = self.b.module.globals.get(name)
        if function is None:
            type_ = ir.FunctionType(_V16I32, [_V16I32, _V64I8, _V64I8])
            function = ir.Function(self.b.module, type_, name)
        return self.b.call(function, [total, self.b.bitcast(unsigned, _V64I8), signed])

    def _portable_dot(self, total: ir.Value, unsigned: ir.Value, signed: ir.Value) -> ir.Value:
        """Bytes 0 and 2 of each lane, then 1 and 3, as pairs of 16-bit products (x86: pmaddwd)."""
        b, eight = self.b, ir.Constant(_V32I16, [8] * 32)
        x, w = b.bitcast(unsigned, _V32I16), b.bitcast(signed, _V32I16)
        low = b.and_(x, ir.Constant(_V32I16, [0xFF] * 32)), b.ashr(b.shl(w, eight), eight)
        high = b.lshr(x, eight), b.ashr(w, eight)
        for bytes_, weights in (low, high):
            products = b.mul(b.sext(bytes_, _V32I32), b.sext(weights, _V32I32))
            for first in (0, 1):
                lanes = ir.Constant(_V16I32, list(range(first, 32, 2)))
                total = b.add(total, b.shuffle_vector(products, ir.Constant(_V32I32, ir.Undefined), lanes))
        return total

    def store_bytes(self, value: ir.Value, address: ir.Value, mask: ir.Value | None = None) -> None:
        """16 bytes, or the lanes of them whose bits `mask` has."""
        pointer = self.b.inttoptr(address, _V16I8.as_pointer())
        if mask is None:
            self.b.store(value, pointer, align=1)
            return
        with self.b.if_else(self.b.icmp_signed("==", mask, self.const(0xFFFF))) as (whole, part):
            with whole:
                self.b.store(value, pointer, align=1)
            with part:
                name = "llvm.masked.store.v16i8.p0"
                type_ = ir.FunctionType(ir.VoidType(), [_V16I8, pointer.type, _V16I1])
                function = self.b.module.globals.get(name) or ir.Function(self.b.module, type_, name)
                lanes = self.b.bitcast(self.b.trunc(mask, _I16), _V16I1)
                self.b.call(function, [value, pointer, lanes])


class _Requantise:
    """One vector's constants, loaded once, applied to any number of sums."""

    def __init__(
        self, code: _Code, parameters: ir.Value, zero: ir.Value, low: ir.Value, high: ir.Value
    ) -> None:
        self._code = code
        self._zero, self._low, self._high = zero, low, high

        def lane(which: Lane, type_: ir.Type) -> ir.Value:
            return code.load(code.plus(parameters, ZMM * which), type_)

        self._bias = lane(Lane.BIAS, _V16I32)
        self.offset = lane(Lane.OFFSET, _V16I32)
        self._scale = [lane(Lane.SCALE0, _V8I64), lane(Lane.SCALE1, _V8I64)]
        self._above = [lane(Lane.ABOVE0, _V8I64), lane(Lane.ABOVE1, _V8I64)]
        self._below = [lane(Lane.BELOW0, _V8I64), lane(Lane.BELOW1, _V8I64)]
        self._shift = [lane(Lane.SHIFT0, _V8I64), lane(Lane.SHIFT1, _V8I64)]

    def __call__(self, sums: ir.Value) -> ir.Value:
        """<16 x i32> sums to <16 x i8> results."""
        b = self._code.b
        pairs = b.bitcast(b.add(sums, self._bias), _V8I64)
        by32 = ir.Constant(_V8I64, [32] * 8)
        halves = [b.ashr(b.shl(pairs, by32), by32), b.ashr(pairs, by32)]
        done = [self._scaled(value, n) for n, value in enumerate(halves)]
        low_half = ir.Constant(_V8I64, [0xFFFFFFFF] * 8)
        joined = b.or_(b.and_(done[0], low_half), b.shl(done[1], by32))
        result = b.add(b.bitcast(joined, _V16I32), self._zero)
        result = self._select("<", result, self._low)
        result = self._select(">", result, self._high)
        return b.trunc(result, _V16I8)

    def _scaled(self, value: ir.Value, n: int) -> ir.Value:
        b = self._code.b
        by32 = ir.Constant(_V8I64, [32] * 8)
        scale = b.ashr(b.shl(self._scale[n], by32), by32)
        product = b.mul(value, scale)
        negative = b.icmp_signed("<", product, ir.Constant(_V8I64, [0] * 8))
        term = b.select(negative, self._below[n], self._above[n])
        return b.ashr(b.add(product, term), self._shift[n])

    def _select(self, comparison: str, value: ir.Value, limit: ir.Value) -> ir.Value:
        b = self._code.b
        return b.select(b.icmp_signed(comparison, value, limit), limit, value)


def _intrinsic(emit: Callable[[_Code, list[ir.Value]], None], arguments: int) -> Any:
    """A Numba function of `arguments` int64 that returns nothing."""
    names = ", ".join(f"a{n}" for n in range(arguments))
    signature = types.void(*[types.int64] * arguments)

    def generate(context: Any, builder: Any, _: Any, values: Any) -> Any:
        emit(_Code(builder), list(values))
        return context.get_dummy_value()

    # Numba takes the number of arguments from the function it is given.
    scope: dict[str, Any] = {"signature": signature, "generate": generate}
    exec(f"def simd(typing_context, {names}): return signature, generate", scope)
    return intrinsic(scope["simd"])


def copy_blocks() -> Any:
    """A function for kernels, on any CPU: copy a row of pixels made of 16-byte blocks.

    (target, target pixel step, target block step, source, source pixel step, source block step, pixels,
    blocks, flip): every byte xor `flip`.
    """

    def emit(code: _Code, arguments: list[ir.Value]) -> None:
        target, to_pixel, to_block, source, from_pixel, from_block, pixels, blocks, flip = arguments
        b = code.b
        undefined = ir.Constant(_V16I8, ir.Undefined)
        one = b.insert_element(undefined, b.trunc(flip, _I8), ir.Constant(_I32, 0))
        flips = b.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))
        block_from, block_to = code.variable(source), code.variable(target)

        def one_block(_: ir.Value) -> None:
            at, to = code.variable(b.load(block_from)), code.variable(b.load(block_to))

            def one_pixel(_: ir.Value) -> None:
                values = code.load(b.load(at), _V16I8)
                code.store_bytes(b.xor(values, flips), b.load(to))
                b.store(code.plus(b.load(at), from_pixel), at)
                b.store(code.plus(b.load(to), to_pixel), to)

            code.counted(pixels, one_pixel)
            b.store(code.plus(b.load(block_from), from_block), block_from)
            b.store(code.plus(b.load(block_to), to_block), block_to)

        code.counted(blocks, one_block)

    return _intrinsic(emit, 9)


def sum_bytes() -> Any:
    """A function for kernels: (address, words, result) adds up 4 * `words` unsigned bytes into the int64
    at `result`."""

    def emit(code: _Code, arguments: list[ir.Value]) -> None:
        address, words, result = arguments
        b = code.b
        ones = ir.Constant(_V64I8, [1] * ZMM)
        total = code.variable(ir.Constant(_V16I32, [0] * LANES))
        whole = b.lshr(words, code.const(4))

        def block(index: ir.Value) -> None:
            values = code.load(code.plus(address, b.mul(index, code.const(ZMM))), _V64I8)
            b.store(code.dot(b.load(total), values, ones), total)

        code.counted(whole, block)
        rest_at = code.plus(address, b.mul(whole, code.const(ZMM)))

        def word(index: ir.Value) -> None:
            value = code.load(code.plus(rest_at, b.mul(index, code.const(4))), _I32)
            lanes = b.insert_element(ir.Constant(_V16I32, [0] * LANES), value, ir.Constant(_I32, 0))
            b.store(code.dot(b.load(total), lanes, ones), total)

        code.counted(b.and_(words, code.const(15)), word)
        sums = b.load(total)
        added = code.const(0)
        for lane in range(LANES):
            one = b.extract_element(sums, ir.Constant(_I32, lane))
            added = b.add(added, b.zext(one, _I64))
        b.store(added, b.inttoptr(result, _I64.as_pointer()))

    return _intrinsic(emit, 3)


def tile(rows: int, vectors: int) -> Any:
    """A function for kernels: convolve `rows` pixels by `vectors` vectors of channels.

    (image, pixels, segments, segment count, words a segment, weights, parameters, window sums, outputs,
    block stride, last mask, zero point, low, high): `pixels` int64[rows] byte offsets in the image;
    `segments` int64 byte offsets from a pixel; `weights` int8[words][16 * vectors][4]; `parameters` of
    each vector; `window sums` int32[rows], multiplied by the OFFSETs; `outputs` int64[rows] addresses of
    the first channel, `block stride` bytes between vectors; `last mask` the valid lanes of the last one.
    """

    def emit(code: _Code, arguments: list[ir.Value]) -> None:
        (image, pixels, segments, count, length, weights, parameters, windows, outputs) = arguments[:9]
        block_stride, last_mask, zero, low, high = arguments[9:]
        b = code.b
        empty = ir.Constant(_V16I32, [0] * LANES)
        sums = [[code.variable(empty) for _ in range(vectors)] for _ in range(rows)]
        starts = [code.plus(image, code.word(pixels, i)) for i in range(rows)]
        weight_at = code.variable(weights)

        def segment(index: ir.Value) -> None:
            offset = code.word(segments, index)
            bases = [code.plus(start, offset) for start in starts]

            def step(k: ir.Value) -> None:
                at = b.load(weight_at)
                columns = [code.load(code.plus(at, ZMM * v), _V64I8) for v in range(vectors)]
                b.store(code.plus(at, ZMM * vectors), weight_at)
                step_bytes = b.mul(k, code.const(4))
                for i in range(rows):
                    spread = code.splat(code.load(code.plus(bases[i], step_bytes), _I32))
                    for v in range(vectors):
                        b.store(code.dot(b.load(sums[i][v]), spread, columns[v]), sums[i][v])

            code.counted(length, step)

        code.counted(count, segment)
        limits = [code.splat64(value) for value in (zero, low, high)]
        targets = [code.word(outputs, i) for i in range(rows)]
        for v in range(vectors):
            requantise = _Requantise(code, code.plus(parameters, PARAMETER_BYTES * v), *limits)
            block = b.mul(block_stride, code.const(v))
            for i in range(rows):
                window = code.splat(code.load(code.plus(windows, 4 * i), _I32))
                total = b.add(b.load(sums[i][v]), b.mul(window, requantise.offset))
                mask = last_mask if v == vectors - 1 else None
                code.store_bytes(requantise(total), code.plus(targets[i], block), mask)

    return _intrinsic(emit, 14)


def depthwise_row() -> Any:
    """A function for kernels: depthwise convolution of a row of pixels, one vector of channels.

    (image, pixel step, pixels, taps, groups, weights, second weights, parameters, output, output step,
    mask, zero point, low, high): `image` the address of the first pixel's window at this vector;
    `taps` int64[4 * groups] byte offsets; `weights` int8[groups][16][4] and, unless 0, `second weights`
    alike, to be added to them.
    """

    def emit(code: _Code, arguments: list[ir.Value]) -> None:
        (image, step, pixels, taps, groups, weights, second, parameters, output, output_step) = arguments[:10]
        mask, zero, low, high = arguments[10:]
        b = code.b
        limits = [code.splat64(value) for value in (zero, low, high)]
        requantise = _Requantise(code, parameters, *limits)
        two_planes = b.icmp_signed("!=", second, code.const(0))
        source, target = code.variable(image), code.variable(output)

        def one_pixel(_: ir.Value) -> None:
            at = b.load(source)
            total = code.variable(ir.Constant(_V16I32, [0] * LANES))

            def group(index: ir.Value) -> None:
                table = code.plus(taps, b.mul(index, code.const(32)))
                packed = None
                for n in range(4):
                    values = code.load(code.plus(at, code.word(table, n)), _V16I8)
                    wide = b.shl(b.zext(values, _V16I32), ir.Constant(_V16I32, [8 * n] * LANES))
                    packed = wide if packed is None else b.or_(packed, wide)
                plane = b.mul(index, code.const(ZMM))
                first = code.load(code.plus(weights, plane), _V64I8)
                b.store(code.dot(b.load(total), packed, first), total)
                with b.if_then(two_planes):
                    more = code.load(code.plus(second, plane), _V64I8)
                    b.store(code.dot(b.load(total), packed, more), total)

            code.counted(groups, group)
            code.store_bytes(requantise(b.load(total)), b.load(target), mask)
            b.store(code.plus(at, step), source)
            b.store(code.plus(b.load(target), output_step), target)

        code.counted(pixels, one_pixel)

    return _intrinsic(emit, 14)
