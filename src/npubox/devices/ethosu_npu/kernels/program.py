# SPDX-License-Identifier: Apache-2.0
"""Many steps in one call: a table of rows, one a step, executed without going back to Python.

A row is what a step's Python form would call its kernels with, addresses included. A row that cannot
be executed as it stands (bytes that changed, an address outside its region, a value out of range) is
left to the Python form, before anything of it has been written: `run` returns its index.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from npubox.devices.ethosu_npu.kernels import bytes as byte_kernels
from npubox.devices.ethosu_npu.kernels import feature_maps, plain, scaling
from npubox.devices.jit import (
    add_cell,
    helper,
    i64,
    kernel,
    load_cell,
    move_bytes,
    pointer_i8,
    pointer_i16,
    pointer_i32,
    pointer_i64,
    pointer_u8,
    store_cell,
)

Int64Array = npt.NDArray[np.int64]


class Opcode(IntEnum):
    PYTHON = 0  # no row yet, or never: the step's Python form runs
    COPY = 1
    CONVOLVE = 2
    DEPTHWISE = 3
    MAP = 4
    PAIRS = 5
    ELEMENTWISE = 6
    POOL = 7
    REDUCE_SUM = 8
    PLAIN_CONVOLVE = 9


class Window(IntEnum):
    """Columns of the regions table: host address of the base, and the bytes around it that are mapped."""

    ADDRESS = 0
    BEFORE = 1
    AFTER = 2
    WRITABLE = 3


class State(IntEnum):
    """Cells shared between threads: the step under way or next, a wish to stop before the next, and the work
    that `run` shares with `assist`: whether it is there, what is to be taken (see `_take`), how many
    chunks are done, the row, where its OFM lies, rows of a chunk, and a wish that it leave."""

    STEP = 0
    STOP = 1
    ASSISTED = 2
    TAKEN = 3
    DONE = 4
    ROW = 5
    TARGET = 6
    GRAIN = 7
    LEAVE = 8


class Col(IntEnum):
    """Columns of a row. IFM, IFM2, OFM: vector address, region, start, size; STREAM n: region, start,
    size, address of the copy to compare with. TABLE: offset in SHRAM, entries, entry bytes, signed."""

    OPCODE = 0
    IFM = 1
    IFM2 = 5
    OFM = 9
    STREAM0 = 13
    STREAM1 = 17
    STREAM2 = 21
    STREAM3 = 25
    STREAMS = 29
    TABLE = 30
    HEIGHT = 34
    WIDTH = 35
    DEPTH = 36
    OFM_HEIGHT = 37
    OFM_WIDTH = 38
    OFM_DEPTH = 39
    BUFFER0 = 40
    BUFFER1 = 41
    BUFFER2 = 42
    BUFFER3 = 43
    BUFFER4 = 44
    BUFFER5 = 45
    BUFFER6 = 46
    A0 = 47  # the rest by opcode, in the order of the kernel's arguments
    A1 = 48
    A2 = 49
    A3 = 50
    A4 = 51
    A5 = 52
    A6 = 53
    A7 = 54
    A8 = 55
    A9 = 56
    A10 = 57
    A11 = 58
    A12 = 59
    A13 = 60
    A14 = 61
    A15 = 62
    A16 = 63


COLUMNS = 64

_PYTHON, _COPY, _CONVOLVE, _DEPTHWISE, _MAP, _PAIRS = range(6)
_ELEMENTWISE, _POOL, _REDUCE_SUM, _PLAIN_CONVOLVE = 6, 7, 8, 9
_IFM, _IFM2, _OFM, _STREAM0, _STREAMS, _TABLE = 1, 5, 9, 13, 29, 30
_H, _W, _D, _OH, _OW, _OD = 34, 35, 36, 37, 38, 39
_B0, _B1, _B2, _B3, _B4, _B5, _B6 = 40, 41, 42, 43, 44, 45, 46
_A = 47
_ASSISTED, _TAKEN, _DONE, _ROW, _TARGET, _GRAIN, _LEAVE = 2, 3, 4, 5, 6, 7, 8
_INDEX_BITS = 20  # of a chunk in TAKEN; as many for the number of chunks above, a serial number on top
_INDEX_MASK = (1 << _INDEX_BITS) - 1
_SHARED_WORK = 1 << 17  # multiplications below which a row is not worth sharing
_CHUNKS = 4
_FM_COLUMNS = len(feature_maps.Map)
_POST_COLUMNS = len(scaling.Post)


@helper
def _place(regions: Any, region: int, start: int, size: int, write: bool) -> int:
    """Host address of `size` bytes, 0 where they are not all there."""
    window = regions[region]
    if start < -window[1] or start + size > window[2] or (write and window[3] == 0):
        return i64(0)
    return i64(window[0] + start)


@helper
def _bytes(address: int, size: int) -> Any:
    return numba.carray(pointer_u8(address), size)


@helper
def _words(address: int, size: int) -> Any:
    return numba.carray(pointer_i64(address), size)


@helper
def _vector(address: int) -> Any:
    return numba.carray(pointer_i64(address), _FM_COLUMNS)


@helper
def _same(first: int, second: int, size: int) -> bool:
    a, b = numba.carray(pointer_u8(first), size), numba.carray(pointer_u8(second), size)
    difference = np.uint8(0)
    for i in range(size):
        difference |= a[i] ^ b[i]
    return bool(difference == 0)


@helper
def _streams_unchanged(row: Any, regions: Any) -> bool:
    for n in range(row[_STREAMS]):
        at = _STREAM0 + 4 * n
        size = row[at + 2]
        now = _place(regions, row[at], row[at + 1], size, False)
        if now == 0 or not _same(now, row[at + 3], size):
            return False
    return True


@helper
def _read_table(row: Any, shram: int, out: Any) -> None:
    """The lookup table as int32 entries."""
    size, signed = row[_TABLE + 2], row[_TABLE + 3]
    source = numba.carray(pointer_u8(shram + row[_TABLE]), row[_TABLE + 1] * size)
    for i in range(row[_TABLE + 1]):
        value = i64(source[size * i])
        if size > 1:
            value |= i64(source[size * i + 1]) << 8
        if size > 2:
            value |= i64(source[size * i + 2]) << 16 | i64(source[size * i + 3]) << 24
        if signed or size > 2:
            sign = i64(1) << (8 * size - 1)
            value = (value ^ sign) - sign
        out[i] = value


@helper
def _finish(row: Any, values: Any, post: Any, shram: int, target: int, ofm: Any) -> None:
    """Output stage of the plain operations: BUFFER1 the settings, BUFFER2 int32 results, BUFFER3 table."""
    count = row[_OH] * row[_OW] * row[_OD]
    table = numba.carray(pointer_i32(row[_B3]), max(i64(1), row[_TABLE + 1]))
    _read_table(row, shram, table)
    flat = numba.carray(pointer_i32(row[_B2]), count)
    scaling.finish(values, post, table, flat)
    results = numba.carray(pointer_i32(row[_B2]), (row[_OH], row[_OW], row[_OD]))
    feature_maps.store(_bytes(target, row[_OFM + 3]), ofm, results)


@helper
def _load(row: Any, column: int, source: int, buffer: int, height: int, width: int, depth: int) -> Any:
    values = numba.carray(pointer_i64(buffer), (height, width, depth))
    feature_maps.load(_bytes(source, row[column + 3]), _vector(row[column]), values)
    return values


@helper
def _byte_table(row: Any, shram: int) -> Any:
    return numba.carray(pointer_u8(shram + row[_TABLE]), row[_TABLE + 1])


@helper
def _convolve(row: Any, source: int, target: int, shram: int, cells: int) -> None:
    image = numba.carray(pointer_u8(row[_B0]), (row[_A], row[_A + 1], row[_A + 2]))
    feature_maps.gather_bytes(
        _bytes(source, row[_IFM + 3]),
        _vector(row[_IFM]),
        row[_H],
        row[_W],
        row[_D],
        row[_A + 3],
        row[_A + 4],
        row[_A + 5],
        row[_A + 6],
        image,
    )
    units = row[_OH] * row[_OW] if row[0] == _CONVOLVE else row[_OH]
    work = row[_A + 11] * row[_OH] * row[_OW]
    if load_cell(cells + 8 * _ASSISTED) == 0 or work < _SHARED_WORK or units < 2 * _CHUNKS:
        _convolve_part(row, target, shram, i64(0), units)
        return
    grain = (units + _CHUNKS - 1) // _CHUNKS
    chunks = (units + grain - 1) // grain
    store_cell(cells + 8 * _TARGET, target)
    store_cell(cells + 8 * _GRAIN, grain)
    store_cell(cells + 8 * _ROW, load_cell(cells))
    store_cell(cells + 8 * _DONE, i64(0))
    serial = (load_cell(cells + 8 * _TAKEN) >> (2 * _INDEX_BITS)) + 1
    store_cell(cells + 8 * _TAKEN, ((serial & _INDEX_MASK) << _INDEX_BITS | chunks) << _INDEX_BITS)
    index = _take(cells)
    while index >= 0:
        _convolve_part(row, target, shram, index * grain, min(units, (index + 1) * grain))
        add_cell(cells + 8 * _DONE, i64(1))
        index = _take(cells)
    while load_cell(cells + 8 * _DONE) < chunks:
        pass


@helper
def _take(cells: int) -> int:
    """The next chunk of the shared row, -1 if none is left. Index, count and serial number share a cell,
    so that a late thread cannot take a chunk of one row for one of another."""
    taken = add_cell(cells + 8 * _TAKEN, i64(1))
    index = taken & _INDEX_MASK
    return i64(index) if index < (taken >> _INDEX_BITS) & _INDEX_MASK else i64(-1)


@helper
def _convolve_part(row: Any, target: int, shram: int, first: int, last: int) -> None:
    """Output pixels (CONVOLVE) or rows (DEPTHWISE) first .. last - 1 out of the gathered image."""
    image = numba.carray(pointer_u8(row[_B0]), (row[_A], row[_A + 1], row[_A + 2]))
    memory, ofm = _bytes(target, row[_OFM + 3]), _vector(row[_OFM])
    table = _byte_table(row, shram)
    parameters = _bytes(row[_B3], row[_A + 12])
    if row[0] == _CONVOLVE:
        byte_kernels.convolve(
            image,
            _words(row[_B1], row[_A + 7]),
            row[_A + 8],
            row[_A + 9],
            row[_A + 10],
            row[_OW],
            first,
            last,
            numba.carray(pointer_i8(row[_B2]), row[_A + 11]),
            parameters,
            row[_OD],
            row[_A + 13] != 0,
            row[_A + 14],
            row[_A + 15],
            row[_A + 16],
            table,
            row[_B5],
            memory,
            ofm,
        )
    else:
        byte_kernels.depthwise(
            image,
            _words(row[_B1], row[_A + 7]),
            row[_A + 9],
            row[_A + 10],
            row[_OW],
            first,
            last,
            numba.carray(pointer_i8(row[_B2]), row[_A + 11]),
            numba.carray(pointer_i8(row[_B4]), row[_A + 13]),
            parameters,
            row[_OD],
            row[_A + 14],
            row[_A + 15],
            row[_A + 16],
            table,
            row[_B5],
            memory,
            ofm,
        )


@helper
def _equal(first: Any, second: Any, count: int) -> bool:
    difference = i64(0)
    for n in range(count):
        difference |= first[n] ^ second[n]
    return difference == 0


@helper
def _apart_or_same(row: Any, source: int, column: int, target: int) -> bool:
    """Whether element order does not matter to a map from `source` to `target`."""
    if source + row[column + 3] <= target or target + row[_OFM + 3] <= source:
        return True
    if source != target:
        return False
    first, second = _vector(row[column]), _vector(row[_OFM])
    return _equal(first, second, _FM_COLUMNS - 2)


@helper
def _map(row: Any, regions: Any, source: int, target: int, shram: int) -> bool:
    if row[_TABLE + 1] and not _same(shram + row[_TABLE], row[_B1], row[_TABLE + 1] * row[_TABLE + 2]):
        return False
    if not _apart_or_same(row, source, _IFM, target):
        return False
    memory, ofm = _bytes(target, row[_OFM + 3]), _vector(row[_OFM])
    first = _bytes(source, row[_IFM + 3])
    if row[0] == _MAP:
        table = _bytes(row[_B0], i64(256))
        byte_kernels.map_elements(first, _vector(row[_IFM]), table, memory, ofm, row[_OH], row[_OW], row[_OD])
        return True
    other = _place(regions, row[_IFM2 + 1], row[_IFM2 + 2], row[_IFM2 + 3], False)
    if other == 0 or not _apart_or_same(row, other, _IFM2, target):
        return False
    byte_kernels.map_pairs(
        first,
        _vector(row[_IFM]),
        _bytes(other, row[_IFM2 + 3]),
        _vector(row[_IFM2]),
        row[_A],
        row[_A + 1],
        row[_A + 2],
        _bytes(row[_B0], i64(65536)),
        memory,
        ofm,
        row[_OH],
        row[_OW],
        row[_OD],
    )
    return True


@helper
def _elementwise(row: Any, regions: Any, source: int, target: int, shram: int) -> bool:
    first = _load(row, _IFM, source, row[_B0], row[_OH], row[_OW], row[_OD])
    second = first
    if row[_IFM2]:
        other = _place(regions, row[_IFM2 + 1], row[_IFM2 + 2], row[_IFM2 + 3], False)
        if other == 0:
            return False
        second = _load(row, _IFM2, other, row[_B4], row[_H], row[_W], row[_D])
    elif row[_B4]:
        second = numba.carray(pointer_i64(row[_B4]), (i64(1), i64(1), i64(1)))
    out = numba.carray(pointer_i64(row[_B5]), (row[_OH], row[_OW], row[_OD]))
    failed = plain.elementwise(
        first,
        second,
        row[_A],
        row[_A + 1],
        row[_A + 2],
        row[_A + 3],
        _words(row[_B6], i64(5)),
        row[_A + 4],
        row[_A + 5],
        row[_A + 6],
        out,
    )
    if failed:
        return False
    _finish(row, out.reshape(-1), _words(row[_B1], i64(_POST_COLUMNS)), shram, target, _vector(row[_OFM]))
    return True


@helper
def _pool(row: Any, source: int, target: int, shram: int) -> bool:
    values = _load(row, _IFM, source, row[_B0], row[_H], row[_W], row[_D])
    out = numba.carray(pointer_i64(row[_B5]), (row[_OH], row[_OW], row[_OD]))
    if row[0] == _REDUCE_SUM:
        failed = plain.reduce_sum(values, row[_A], row[_A + 1], out)
    else:
        failed = plain.pool(
            values,
            row[_A],
            row[_A + 2] != 0,
            row[_A + 3],
            row[_A + 4],
            row[_A + 5],
            row[_A + 6],
            row[_A + 7],
            row[_A + 8],
            row[_A + 9],
            row[_A + 10],
            numba.carray(pointer_i64(row[_B6]), (row[_A + 11], i64(2))),
            row[_A + 1],
            out,
        )
    if failed:
        return False
    _finish(row, out.reshape(-1), _words(row[_B1], i64(_POST_COLUMNS)), shram, target, _vector(row[_OFM]))
    return True


@helper
def _plain_convolve(row: Any, source: int, target: int, shram: int) -> bool:
    values = _load(row, _IFM, source, row[_B0], row[_H], row[_W], row[_D])
    shape = (row[_A], row[_A + 1], row[_A + 2], row[_A + 3])
    sums = numba.carray(pointer_i64(row[_B5]), (row[_OH], row[_OW], row[_OD]))
    plain.convolve(
        values,
        numba.carray(pointer_i16(row[_B4]), shape),
        row[_A + 4],
        row[_A + 5] != 0,
        row[_A + 6],
        row[_A + 7],
        row[_A + 8],
        row[_A + 9],
        row[_A + 10],
        row[_A + 11],
        sums,
    )
    table = numba.carray(pointer_i32(row[_B3]), max(i64(1), row[_TABLE + 1]))
    _read_table(row, shram, table)
    pixels = row[_OH] * row[_OW]
    failed = scaling.finish_channels(
        numba.carray(pointer_i64(row[_B5]), (pixels, row[_OD])),
        numba.carray(pointer_i64(row[_B6]), (i64(3), row[_OD])),
        _words(row[_B1], i64(_POST_COLUMNS)),
        table,
        row[_A + 12],
        numba.carray(pointer_i32(row[_B2]), (pixels, row[_OD])),
    )
    if failed:
        return False
    results = numba.carray(pointer_i32(row[_B2]), (row[_OH], row[_OW], row[_OD]))
    feature_maps.store(_bytes(target, row[_OFM + 3]), _vector(row[_OFM]), results)
    return True


@helper
def _copy(row: Any, regions: Any, source: int, shram: int) -> bool:
    size = row[_IFM + 3]
    if row[_OFM + 1] < 0:
        move_bytes(shram + row[_OFM + 2], source, size)
        return True
    target = _place(regions, row[_OFM + 1], row[_OFM + 2], size, True)
    if target == 0:
        return False
    move_bytes(target, source, size)
    return True


@kernel("int64(int64[:, ::1], int64, int64, int64[:, ::1], int64, int64[::1])")
def run(
    program: Int64Array, first: int, last: int, regions: Int64Array, shram: int, state: Int64Array
) -> int:
    """Execute rows first .. last - 1; the index of the first one that was not executed."""
    cells = state.ctypes.data
    for index in range(first, last):
        row = program[index]
        state[0] = index
        opcode = row[0]
        if opcode == _PYTHON or state[1]:
            return index
        source = _place(regions, row[_IFM + 1], row[_IFM + 2], row[_IFM + 3], False)
        if source == 0:
            return index
        if opcode == _COPY:
            if not _copy(row, regions, source, shram):
                return index
            continue
        target = _place(regions, row[_OFM + 1], row[_OFM + 2], row[_OFM + 3], True)
        if target == 0 or not _streams_unchanged(row, regions):
            return index
        done = True
        if opcode == _CONVOLVE or opcode == _DEPTHWISE:  # noqa: SIM109 - Numba has no `in` for ints
            _convolve(row, source, target, shram, cells)
        elif opcode == _MAP or opcode == _PAIRS:  # noqa: SIM109
            done = _map(row, regions, source, target, shram)
        elif opcode == _ELEMENTWISE:
            done = _elementwise(row, regions, source, target, shram)
        elif opcode == _PLAIN_CONVOLVE:
            done = _plain_convolve(row, source, target, shram)
        else:
            done = _pool(row, source, target, shram)
        if not done:
            return index
    state[0] = last
    return last


@kernel("int64(int64[:, ::1], int64, int64[::1])")
def assist(program: Int64Array, shram: int, state: Int64Array) -> int:
    """Share the convolutions of a `run` in another thread, until LEAVE; how many chunks this one did."""
    cells = state.ctypes.data
    done = i64(0)
    store_cell(cells + 8 * _ASSISTED, i64(1))
    while load_cell(cells + 8 * _LEAVE) == 0:
        taken = load_cell(cells + 8 * _TAKEN)
        if taken & _INDEX_MASK >= (taken >> _INDEX_BITS) & _INDEX_MASK:
            continue
        index = _take(cells)
        if index < 0:
            continue
        row = program[load_cell(cells + 8 * _ROW)]
        grain = load_cell(cells + 8 * _GRAIN)
        units = row[_OH] * row[_OW] if row[0] == _CONVOLVE else row[_OH]
        target = load_cell(cells + 8 * _TARGET)
        _convolve_part(row, target, shram, index * grain, min(units, (index + 1) * grain))
        add_cell(cells + 8 * _DONE, i64(1))
        done += 1
    store_cell(cells + 8 * _ASSISTED, i64(0))
    return done
