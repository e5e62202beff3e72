# SPDX-License-Identifier: Apache-2.0
"""Scaling, rounding, clamping, tables and the store: what happens to a result after it is summed up."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from npubox.hw.ethosu.commands import Activation, ClipRange, Cmd0, Cmd1, Rounding

from .errors import Fault
from .memory import IFM, OFM, Ints, Memory, precision, store, zero_point
from .registers import Registers

INT32 = (-(1 << 31), (1 << 31) - 1)
CLIP_TYPES = {ClipRange.UINT8: np.uint8, ClipRange.INT8: np.int8, ClipRange.INT16: np.int16}
LUT_SIZE = 2048


def ofm_rounding(registers: Registers) -> Rounding:
    return _rounding(registers, registers.u16(Cmd0.OFM_PRECISION) >> 14 & 3)


def ifm_rounding(registers: Registers) -> Rounding:
    code = registers.u16(IFM.precision) >> 14 & 3
    if code != Rounding.DOUBLE:
        registers.refuse(f"input rounding {code}: only 0 (double) is known")
    return Rounding.DOUBLE


def _rounding(registers: Registers, code: int) -> Rounding:
    if code not in (Rounding.DOUBLE, Rounding.NATURAL):
        registers.refuse(f"rounding mode {code} was never verified")
    return Rounding(code)


def scaled(
    values: Ints, scale: int | Ints, shift: int | Ints, rounding: Rounding, double_shift: int = 0
) -> Ints:
    """values * scale / 2^shift by facts §6; `scale` and `shift` one number, or one for each channel."""
    factor, k = np.asarray(scale, np.int64), np.asarray(shift, np.int64)
    largest = int(np.abs(values).max(initial=0)) * int(np.abs(factor).max())
    wide: Any = np.int64
    if largest + (1 << int(k.max())) + (1 << 30) >= 1 << 62:
        wide = object  # Python's integers have no width
    v, s = values.astype(wide), factor.astype(wide)
    one = np.ones_like(k).astype(wide)
    half = np.where(k > 0, one << np.maximum(k - 1, 0).astype(wide), 0)
    product = v * s + half
    if rounding == Rounding.DOUBLE:
        nudge = np.where(k > 31 - double_shift, 1 << 30 - double_shift, 0)
        product = product + np.where(v >= 0, nudge, -nudge)
    shifted = product >> k.astype(wide)
    # Nothing behind this point tells values beyond 2^61 apart.
    result: Ints = np.clip(shifted, -(1 << 61), 1 << 61).astype(np.int64)
    return result


def finish(registers: Registers, memory: Memory, lut: bytearray, values: Ints) -> None:
    """Zero point, activation and store of scaled results (height, width, depth); facts §7.5."""
    kind = precision(registers, OFM)
    activation = registers.u16(Cmd0.ACTIVATION)
    function, clip = activation & 31, activation >> 12 & 7
    if activation & 0x8FE0 or (clip and clip not in CLIP_TYPES):
        registers.refuse(f"ACTIVATION {activation:#x} is not known")
    raw = kind.size == 4 and clip == ClipRange.OFM
    if raw:
        if function != Activation.NONE:
            registers.refuse("an activation function on unclipped 32-bit results")
        store(registers, memory, np.clip(values, *INT32))
        return
    clip_type = np.dtype(CLIP_TYPES[ClipRange(clip)]) if clip else kind.dtype
    low, high = _limits(registers, clip_type)
    values = values + zero_point(registers, OFM)
    if function in (Activation.TANH, Activation.SIGMOID):
        if clip_type != np.int16 or kind.size != 2:
            registers.refuse("tanh and sigmoid are known for 16-bit results only")
        curve = _tanh if function == Activation.TANH else _sigmoid
        values = np.clip(curve(values), low, high)
    else:
        values = np.clip(values, low, high)
        if function >= Activation.TABLE0:
            values = _table(registers, lut, function - Activation.TABLE0, values, clip_type)
        elif function != Activation.NONE:
            registers.refuse(f"activation function {function} is not known")
    store(registers, memory, values)


def _limits(registers: Registers, clip_type: np.dtype[Any]) -> tuple[int, int]:
    info = np.iinfo(clip_type)
    signed = clip_type.kind == "i"
    low = max(int(info.min), registers.i16(Cmd0.ACTIVATION_MIN, signed))
    high = min(int(info.max), registers.i16(Cmd0.ACTIVATION_MAX, signed))
    if low > high:
        registers.refuse(f"ACTIVATION_MIN {low} lies above ACTIVATION_MAX {high}")
    return low, high


def _table(registers: Registers, lut: bytearray, number: int, v: Ints, clip_type: np.dtype[Any]) -> Ints:
    kind = precision(registers, OFM)
    if number > 7:
        registers.refuse(f"table {number} does not exist")
    if clip_type.itemsize == 1:
        entries = _read_table(lut, number, kind.dtype, 256)
        return entries[v + 128 if clip_type.kind == "i" else v]
    if clip_type != np.int16 or kind.dtype != np.int16:
        registers.refuse(f"no table is known for {clip_type} results")
    words = _read_table(lut, number, np.dtype("<i4"), 512)
    base, slope = words.astype(np.int16).astype(np.int64), words >> 16
    index = v + 32768 >> 7
    result: Ints = base[index] + (slope[index] * (v & 127) + 64 >> 7)
    return result


def _read_table(lut: bytearray, number: int, dtype: np.dtype[Any], count: int) -> Ints:
    start, length = 256 * number, count * dtype.itemsize
    if start + length > LUT_SIZE:
        raise Fault("LUT", start, f"a table of {length} bytes does not lie in the LUT RAM")
    return np.frombuffer(bytes(lut[start : start + length]), dtype).astype(np.int64)


def _curve_table() -> Ints:
    def f(i: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return 65536 / (1 + np.exp(-i / 24))

    i = np.arange(256, dtype=np.float64)
    table = np.rint(f(i) + 0.5 * (f(i + 0.5) - (f(i) + f(i + 1)) / 2))
    table[255] = 65535
    return np.minimum(table, 65535).astype(np.int64)


CURVE = _curve_table()


def _interpolated(magnitude: Ints, bits: int, end: int) -> Ints:
    """The curve between its points 2^bits apart; `end` from the last point on."""
    i = np.minimum(magnitude >> bits, 255)
    low, high = CURVE[i], CURVE[np.minimum(i + 1, 255)]
    return np.where(i == 255, end, (low << bits) + (magnitude & (1 << bits) - 1) * (high - low))


def _sigmoid(v: Ints) -> Ints:
    r = _interpolated(np.abs(v), 9, 0x7FFF << 10)
    return np.where(v >= 0, r + 512, (1 << 25) - r + 511) >> 10


def _tanh(v: Ints) -> Ints:
    r = _interpolated(np.abs(v), 8, 0xFFFF << 8)
    return np.where(v >= 0, r - (1 << 23) + 128, -r + (1 << 23) + 127) >> 8


def ofm_scale(registers: Registers) -> tuple[int, int]:
    return registers.scale(Cmd1.OFM_SCALE)
