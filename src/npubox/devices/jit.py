# SPDX-License-Identifier: Apache-2.0
"""Compiled kernels of the virtual devices: typed ways into Numba.

Kernels carry explicit signatures, so they are compiled (or loaded from the disk cache) when their
module is imported, which a machine does at power-up, never inside a job. `kernel_cache` says where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from npubox.devices import kernel_cache

P = ParamSpec("P")
R = TypeVar("R")

if TYPE_CHECKING:

    def i64(value: Any) -> int:
        """A 64-bit integer in kernels; to mypy, an int."""

else:
    i64 = np.int64


@contextmanager
def _caching() -> Iterator[None]:
    previous = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(kernel_cache.directory())
    try:
        yield
    finally:
        numba.config.CACHE_DIR = previous


def kernel(*signatures: str, **options: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Compile for `signatures` now; without the GIL, cached on disk."""

    def compile_(function: Callable[P, R]) -> Callable[P, R]:
        settings = {"nogil": True, "cache": True, "error_model": "numpy"} | options
        with _caching():
            compiled: Callable[P, R] = numba.njit(list(signatures), **settings)(function)
        return compiled

    return compile_


def helper(function: Callable[P, R]) -> Callable[P, R]:
    """A function that only kernels call; compiled into each of them."""
    compiled: Callable[P, R] = numba.njit(nogil=True, error_model="numpy", inline="never")(function)
    return compiled


def _pointer_to(type_: types.Type) -> Any:
    """A function for kernels: a real address (int64) as a typed pointer, for numba.carray."""

    @intrinsic  # type: ignore[untyped-decorator]
    def pointer(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(type_)(types.int64), generate

    return pointer


pointer_u8, pointer_i8 = _pointer_to(types.uint8), _pointer_to(types.int8)
pointer_i16, pointer_i32 = _pointer_to(types.int16), _pointer_to(types.int32)
pointer_i64 = _pointer_to(types.int64)


def _atomic(arguments: int, emit: Callable[[Any, Any, list[Any]], Any]) -> Any:
    """A function for kernels of one int64 cell, by its address, shared between threads."""
    names = ", ".join(f"a{n}" for n in range(arguments))
    signature = types.int64(*[types.int64] * arguments)

    def generate(context: Any, builder: Any, _: Any, values: Any) -> Any:
        pointer = builder.inttoptr(values[0], ir.IntType(64).as_pointer())
        return emit(builder, pointer, values[1:])

    # Numba takes the number of arguments from the function it is given.
    scope: dict[str, Any] = {"signature": signature, "generate": generate}
    exec(f"def atomic(typing_context, {names}): return signature, generate", scope)
    return intrinsic(scope["atomic"])


def _store_cell(builder: Any, pointer: Any, values: list[Any]) -> Any:
    builder.store_atomic(values[0], pointer, "seq_cst", 8)
    return values[0]


load_cell = _atomic(1, lambda builder, pointer, _: builder.load_atomic(pointer, "seq_cst", 8))
store_cell = _atomic(2, _store_cell)
add_cell = _atomic(2, lambda builder, pointer, v: builder.atomic_rmw("add", pointer, v[0], "seq_cst"))


@intrinsic  # type: ignore[untyped-decorator]
def move_bytes(typing_context: Any, target: Any, source: Any, size: Any) -> Any:
    """memmove between real addresses."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        where = [builder.inttoptr(value, pointer) for value in arguments[:2]]
        type_ = ir.FunctionType(ir.VoidType(), [pointer, pointer, ir.IntType(64), ir.IntType(1)])
        name = "llvm.memmove.p0.p0.i64"
        function = builder.module.globals.get(name) or ir.Function(builder.module, type_, name)
        builder.call(function, [*where, arguments[2], ir.Constant(ir.IntType(1), 0)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate
