# SPDX-License-Identifier: Apache-2.0
"""Integer dot products on the CPU's AVX512-VNNI instruction, for Numba kernels.

`tile(rows, vectors)` makes a function for kernels that accumulates a tile of `rows` pixels by
16 * `vectors` channels in registers: sums of products of unsigned by signed bytes, exact in int32
(vpdpbusd does not saturate; whoever calls proves that the sums fit).
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

AVAILABLE = platform.machine() == "x86_64" and bool(llvm.get_host_cpu_features().get("avx512vnni", False))

LANES = 16
_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_VECTOR, _BYTES = ir.VectorType(_I32, LANES), ir.VectorType(_I8, 4 * LANES)


def _element(builder: ir.IRBuilder, base: ir.Value, index: ir.Value, type_: ir.Type) -> ir.Value:
    size = ir.Constant(_I64, type_.width // 8)
    address = builder.add(base, builder.mul(index, size))
    return builder.load(builder.inttoptr(address, type_.as_pointer()), align=1)


def _counted(builder: ir.IRBuilder, count: ir.Value, body: Callable[[ir.Value], None]) -> None:
    """for index in range(count): body(index)"""
    index = builder.alloca(_I64)
    builder.store(ir.Constant(_I64, 0), index)
    head, inside, after = (builder.append_basic_block() for _ in range(3))
    builder.branch(head)
    builder.position_at_end(head)
    builder.cbranch(builder.icmp_signed("<", builder.load(index), count), inside, after)
    builder.position_at_end(inside)
    body(builder.load(index))
    builder.store(builder.add(builder.load(index), ir.Constant(_I64, 1)), index)
    builder.branch(head)
    builder.position_at_end(after)


def _emit(builder: ir.IRBuilder, rows: int, vectors: int, arguments: list[ir.Value]) -> None:
    x, pixels, segments, segment_count, segment_length, weights, out = arguments
    dot_type = ir.FunctionType(_VECTOR, [_VECTOR, _BYTES, _BYTES])
    name = "llvm.x86.avx512.vpdpbusd.512"
    module = builder.module
    dot = module.globals.get(name) or ir.Function(module, dot_type, name)
    sums = [[builder.alloca(_VECTOR) for _ in range(vectors)] for _ in range(rows)]
    for row in sums:
        for cell in row:
            builder.store(ir.Constant(_VECTOR, None), cell)
    starts = [builder.add(x, _element(builder, pixels, ir.Constant(_I64, i), _I64)) for i in range(rows)]
    weight_at = builder.alloca(_I64)
    builder.store(weights, weight_at)

    def segment(index: ir.Value) -> None:
        offset = _element(builder, segments, index, _I64)
        bases = [builder.add(start, offset) for start in starts]

        def step(k: ir.Value) -> None:
            at = builder.load(weight_at)
            columns = []
            for v in range(vectors):
                address = builder.add(at, ir.Constant(_I64, 4 * LANES * v))
                columns.append(builder.load(builder.inttoptr(address, _BYTES.as_pointer()), align=1))
            builder.store(builder.add(at, ir.Constant(_I64, 4 * LANES * vectors)), weight_at)
            for i in range(rows):
                word = _element(builder, bases[i], k, _I32)
                one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), word, ir.Constant(_I32, 0))
                mask = ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES)
                spread = builder.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), mask)
                spread = builder.bitcast(spread, _BYTES)
                for v in range(vectors):
                    total = builder.call(dot, [builder.load(sums[i][v]), spread, columns[v]])
                    builder.store(total, sums[i][v])

        _counted(builder, segment_length, step)

    _counted(builder, segment_count, segment)
    for i in range(rows):
        for v in range(vectors):
            address = builder.add(out, ir.Constant(_I64, 4 * LANES * (i * vectors + v)))
            pointer = builder.inttoptr(address, _VECTOR.as_pointer())
            builder.store(builder.load(sums[i][v]), pointer, align=1)


def tile(rows: int, vectors: int) -> Any:
    """A function `(x, pixels, segments, segment_count, segment_length, weights, out)` for kernels.

    All are int64; addresses are of: bytes; int64[rows] byte offsets of the pixels from x;
    int64[segment_count] byte offsets of the segments from a pixel; int8[K / 4][16 * vectors][4] with K =
    4 * segment_count * segment_length; int32[rows][16 * vectors] to write the sums to.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def vnni_tile(
        typing_context: Any,
        x: Any,
        pixels: Any,
        segments: Any,
        count: Any,
        length: Any,
        weights: Any,
        out: Any,
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _emit(builder, rows, vectors, arguments)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), generate

    return vnni_tile
