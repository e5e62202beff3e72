# SPDX-License-Identifier: Apache-2.0
"""Pools, element-wise operations and DMA as executable steps."""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt

from npubox.devices.ethosu_npu.byte_maps import (
    FEWEST_PAIRS,
    ByteMap,
    byte_sized,
    run_map,
    safe_in_place,
)
from npubox.devices.ethosu_npu.convolution import ConvolutionStep
from npubox.devices.ethosu_npu.faults import Refused
from npubox.devices.ethosu_npu.kernels import feature_maps, plain, scaling
from npubox.devices.ethosu_npu.kernels.program import Col, Opcode
from npubox.devices.ethosu_npu.memory import MapLayout, Regions, Shram, elements_overlap
from npubox.devices.ethosu_npu.operations import (
    Convolution,
    Dma,
    Elementwise,
    FeatureMap,
    Operation,
    Output,
    Pool,
    Shift,
)
from npubox.devices.ethosu_npu.program import Row, Scratch, Step, padded
from npubox.devices.ethosu_npu.values import TABLE16_ENTRIES, load_values, output_table, post_vector
from npubox.hw.ethosu.commands import ElementwiseMode, PoolMode, ScaleMode, Upscale

Int64Array = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]

MOST_ELEMENTS = 1 << 25
MOST_TAPS = 1 << 20


def _check_size(*maps: FeatureMap | None) -> None:
    for fm in maps:
        if fm is not None and fm.height * fm.width * fm.depth > MOST_ELEMENTS:
            raise Refused(
                f"a feature map of {fm.height} x {fm.width} x {fm.depth} elements is more than the"
                f" {MOST_ELEMENTS} that are modelled"
            )


class _Finisher:
    """Scale, finish and store the int64 results of a pool or element-wise operation."""

    def __init__(self, ofm: FeatureMap, output: Output, scaled: bool) -> None:
        self._fm = ofm
        self._output = output
        self._post = post_vector(output, scaled)
        self.layout = MapLayout(ofm)

    def moved(self, shift: int) -> _Finisher:
        other = copy.copy(self)
        other.layout = self.layout.moved(shift)
        return other

    @property
    def scratch_bytes(self) -> int:
        results = int(np.prod(self.layout.shape, dtype=np.int64))
        return padded(8 * results, 4 * results, 4 * TABLE16_ENTRIES)

    def fill(self, row: Row, scratch: Scratch) -> None:
        """The columns of the output stage: BUFFER5 takes the int64 results, BUFFER2 what is stored."""
        results = int(np.prod(self.layout.shape, dtype=np.int64))
        row.ofm(self._fm, self.layout)
        row.table(self._output, self._fm)
        row.cells[Col.BUFFER1] = row.address(self._post)
        row.cells[Col.BUFFER5] = scratch.take(8 * results)
        row.cells[Col.BUFFER2] = scratch.take(4 * results)
        row.cells[Col.BUFFER3] = scratch.take(4 * TABLE16_ENTRIES)

    def table(self, shram: Shram) -> Int32Array:
        """The lookup table that the operation ends in, as it is now."""
        return output_table(self._output, self._fm, shram)

    def finish(self, values: Int64Array, table: Int32Array) -> Int32Array:
        """What is stored for `values`, of the same shape."""
        out = np.empty(values.shape, np.int32)
        scaling.finish(values.reshape(-1), self._post, table, out.reshape(-1))
        return out

    def store(self, values: Int64Array, regions: Regions, shram: Shram) -> None:
        target = regions.feature_map(self.layout, write=True)
        feature_maps.store(target, self.layout.vector, self.finish(values, self.table(shram)))


_FAILURES = {
    plain.OVERFLOW: "a value leaves the accumulator's range, which is not modelled",
    plain.SHIFT_RANGE: "a shift by an operand outside 0..31 is not modelled",
    plain.EMPTY_WINDOW: "a window that holds padding alone is not modelled",
}


def _check(code: int) -> None:
    if code:
        raise Refused(_FAILURES[code])


class PoolStep:
    def __init__(self, operation: Pool) -> None:
        self._operation = operation
        self._ifm = MapLayout(operation.ifm)
        window = operation.window
        self._by_count = operation.mode is PoolMode.AVERAGE and window.padded
        self._finisher = _Finisher(operation.ofm, operation.output, scaled=True)
        if window.height * window.width > MOST_TAPS:
            raise Refused(f"a pool over {window.height} x {window.width} elements is not modelled")
        self._ifm_shape = (
            (operation.ofm.height - 1) * window.stride_y + window.height - window.pad_top - window.pad_bottom,
            (operation.ofm.width - 1) * window.stride_x + window.width - window.pad_left - window.pad_right,
        )
        self._scales = _average_scales(window.height * window.width if self._by_count else 0)
        copies = window.plain_1x1 and operation.mode is not PoolMode.REDUCE_SUM
        self._map = None
        if copies and byte_sized(operation.ifm, operation.ofm):
            self._map = ByteMap(operation.ifm, None, self._copied)

    def moved(self, shift: Shift) -> PoolStep:
        other = copy.copy(self)
        other._ifm = self._ifm.moved(shift.ifm)
        other._finisher = self._finisher.moved(shift.ofm)
        return other

    @property
    def scratch_bytes(self) -> int:
        return self._finisher.scratch_bytes + padded(_value_bytes(self._ifm))

    def row(self, scratch: Scratch) -> Row | None:
        operation = self._operation
        window = operation.window
        if self._map is not None:
            return _map_row(self._map, self._ifm, None, self._finisher, scratch)
        if window.upscale is not Upscale.NONE:
            return None
        row = Row(Opcode.REDUCE_SUM if operation.mode is PoolMode.REDUCE_SUM else Opcode.POOL)
        row.ifm(self._ifm, *self._ifm.shape[:2])
        self._finisher.fill(row, scratch)
        row.cells[Col.BUFFER0] = scratch.take(_value_bytes(self._ifm))
        row.cells[Col.BUFFER6] = row.address(self._scales)
        row.arguments(
            operation.ifm.zero_point,
            1 << (operation.accumulator_bits - 1),
            int(operation.mode is PoolMode.AVERAGE),
            window.height,
            window.width,
            window.stride_y,
            window.stride_x,
            window.pad_top,
            window.pad_left,
            int(self._by_count),
            int(operation.output.rounding),
            len(self._scales),
        )
        return row

    def _copied(self, values: Int64Array, _: Int64Array, table: Int32Array) -> Int32Array:
        return self._finisher.finish(values - self._operation.ifm.zero_point, table)

    def run(self, regions: Regions, shram: Shram) -> None:
        operation = self._operation
        if self._map is not None and safe_in_place(regions, self._ifm, self._finisher.layout):
            table = self._map.table(self._finisher.table(shram))
            run_map(regions, self._ifm, self._finisher.layout, table)
            return
        window, zero_point = operation.window, operation.ifm.zero_point
        values = load_values(regions, self._ifm, window.upscale, self._ifm_shape, zero_point)
        limit = 1 << (operation.accumulator_bits - 1)
        out = np.empty(self._finisher.layout.shape, np.int64)
        if operation.mode is PoolMode.REDUCE_SUM:
            _check(plain.reduce_sum(values, zero_point, limit, out))
        else:
            code = plain.pool(
                values,
                zero_point,
                operation.mode is PoolMode.AVERAGE,
                window.height,
                window.width,
                window.stride_y,
                window.stride_x,
                window.pad_top,
                window.pad_left,
                int(self._by_count),
                int(operation.output.rounding),
                self._scales,
                limit,
                out,
            )
            _check(code)
        self._finisher.store(out, regions, shram)


def _average_scales(most: int) -> Int64Array:
    """(scale, shift) that divides by n, for n = 0 .. most (facts §7.4)."""
    scales = np.zeros((most + 1, 2), np.int64)
    for n in range(1, most + 1):
        e = (n - 1).bit_length()
        scales[n] = ((1 << 31 + e) + (1 << e)) // n, 31 + e
    return scales


_BASE_SHIFT = {1: 20, 2: 15, 4: 0}  # S of the facts' §7.1


class ElementwiseStep:
    def __init__(self, operation: Elementwise) -> None:
        self._operation = operation
        self._ifm = MapLayout(operation.ifm)
        self._ifm2 = MapLayout(operation.ifm2) if operation.ifm2 is not None else None
        wide_mul = operation.mode is ElementwiseMode.MUL and operation.ifm.element_size == 4
        self._mode = plain.MUL_SHIFT if wide_mul else int(operation.mode)
        scaled = not wide_mul and operation.mode is not ElementwiseMode.LRELU
        self._finisher = _Finisher(operation.ofm, operation.output, scaled)
        opa, shift = operation.opa_scale or (0, 0)
        base_shift = _BASE_SHIFT[operation.ifm.element_size]
        inputs = (operation.scale_mode, opa, shift, operation.opb_scale or 0, base_shift)
        self._inputs = np.array(inputs, np.int64)
        if operation.scale_mode is not ScaleMode.OPA_OPB_16 and opa >= 1 << 31:
            raise Refused("an OPA_SCALE of 2^31 or more is unverified")

        scale, shift = operation.output.scale or (0, 0)
        self._scale = (scale - (1 << 32) if scale >> 31 else scale, shift)
        size = operation.ofm.height * operation.ofm.width * operation.ofm.depth
        self._map = None
        bytes_only = byte_sized(operation.ifm, operation.ifm2, operation.ofm)
        if bytes_only and (operation.ifm2 is None or size >= FEWEST_PAIRS):
            self._map = ByteMap(operation.ifm, operation.ifm2, self._mapped)

    def moved(self, shift: Shift) -> ElementwiseStep:
        other = copy.copy(self)
        other._ifm = self._ifm.moved(shift.ifm)
        other._ifm2 = self._ifm2.moved(shift.ifm2) if self._ifm2 is not None else None
        other._finisher = self._finisher.moved(shift.ofm)
        return other

    def run(self, regions: Regions, shram: Shram) -> None:
        layouts = [layout for layout in (self._ifm, self._ifm2) if layout is not None]
        ofm = self._finisher.layout
        if self._map is not None and all(safe_in_place(regions, layout, ofm) for layout in layouts):
            run_map(regions, self._ifm, ofm, self._map.table(self._finisher.table(shram)), self._ifm2)
            return
        first = load_values(regions, self._ifm, Upscale.NONE, (0, 0), 0)
        second = first
        if self._ifm2 is not None:
            second = load_values(regions, self._ifm2, Upscale.NONE, (0, 0), 0)
        self._finisher.store(self._results(first, second, ofm.shape), regions, shram)

    @property
    def scratch_bytes(self) -> int:
        second = _value_bytes(self._ifm2) if self._ifm2 is not None else 0
        return self._finisher.scratch_bytes + padded(_value_bytes(self._ifm), second)

    def row(self, scratch: Scratch) -> Row | None:
        operation = self._operation
        if self._map is not None:
            return _map_row(self._map, self._ifm, self._ifm2, self._finisher, scratch)
        row = Row(Opcode.ELEMENTWISE)
        row.feature_map(Col.IFM, self._ifm)
        self._finisher.fill(row, scratch)
        row.cells[Col.BUFFER0] = scratch.take(_value_bytes(self._ifm))
        if self._ifm2 is not None:
            row.feature_map(Col.IFM2, self._ifm2)
            row.cells[Col.HEIGHT : Col.DEPTH + 1] = self._ifm2.shape
            row.cells[Col.BUFFER4] = scratch.take(_value_bytes(self._ifm2))
        elif operation.scalar is not None:
            row.cells[Col.BUFFER4] = row.address(np.array([operation.scalar], np.int64))
        row.cells[Col.BUFFER6] = row.address(self._inputs)
        row.arguments(
            operation.ifm.zero_point,
            operation.ifm2.zero_point if operation.ifm2 is not None else 0,
            int(operation.swapped),
            self._mode,
            int(operation.output.rounding),
            *self._scale,
        )
        return row

    def _mapped(self, first: Int64Array, second: Int64Array, table: Int32Array) -> Int32Array:
        shape = (1, 1, first.size)
        values = self._results(first.reshape(shape), second.reshape(shape), shape)
        return self._finisher.finish(values, table).reshape(-1)

    def _results(self, first: Int64Array, second: Int64Array, shape: tuple[int, int, int]) -> Int64Array:
        """The operation's int64 results before the output stage, `second` broadcast to `shape`."""
        operation = self._operation
        second_zero = 0
        if operation.ifm2 is not None:
            second_zero = operation.ifm2.zero_point
        elif operation.scalar is not None:
            second = np.full((1, 1, 1), operation.scalar, np.int64)
        out = np.empty(shape, np.int64)
        code = plain.elementwise(
            first,
            second,
            operation.ifm.zero_point,
            second_zero,
            int(operation.swapped),
            self._mode,
            self._inputs,
            int(operation.output.rounding),
            *self._scale,
            out,
        )
        _check(code)
        return out


class DmaStep:
    scratch_bytes = 0

    def __init__(self, operation: Dma) -> None:
        self._operation = operation
        self._table_offset: int | None = None

    def moved(self, shift: Shift) -> DmaStep:
        """A DMA has no feature maps."""
        return self

    def run(self, regions: Regions, shram: Shram) -> None:
        operation = self._operation
        if operation.length == 0:
            return
        source = regions.view(operation.source_region, operation.source, operation.length)
        if operation.target_region is None:
            self._table_offset = shram.table_offset(operation.target, operation.length)
            shram.load(operation.target, source)
        else:
            target = regions.view(operation.target_region, operation.target, operation.length, write=True)
            target[:] = source

    def row(self, scratch: Scratch) -> Row | None:
        operation = self._operation
        if operation.length == 0:
            return None
        row = Row(Opcode.COPY)
        row.cells[Col.IFM : Col.IFM + 4] = 0, operation.source_region, operation.source, operation.length
        region, target = operation.target_region, operation.target
        if region is None:
            assert self._table_offset is not None
            region, target = -1, self._table_offset
        row.cells[Col.OFM + 1 : Col.OFM + 3] = region, target
        return row


def _value_bytes(layout: MapLayout) -> int:
    return 8 * int(np.prod(layout.shape, dtype=np.int64))


def _map_row(
    byte_map: ByteMap, ifm: MapLayout, ifm2: MapLayout | None, finisher: _Finisher, scratch: Scratch
) -> Row | None:
    if not byte_map.current.size:
        return None
    row = Row(Opcode.MAP if ifm2 is None else Opcode.PAIRS)
    finisher.fill(row, scratch)
    row.feature_map(Col.IFM, ifm)
    row.cells[Col.BUFFER0] = row.address(byte_map.current)
    row.cells[Col.BUFFER1] = row.address(byte_map.made_with)
    if ifm2 is not None:
        row.feature_map(Col.IFM2, ifm2)
        row.arguments(*(0 if size == 1 else 1 for size in ifm2.shape))
    return row


def build_step(operation: Operation, ofm_microblock: int) -> Step:
    """The executable form of `operation`. Raises Refused."""
    if isinstance(operation, Convolution | Pool | Elementwise) and elements_overlap(operation.ofm):
        raise Refused("elements of its OFM overlap in memory, where the order of writes is not modelled")
    match operation:
        case Convolution():
            _check_size(operation.ifm, operation.ofm)
            return ConvolutionStep(operation, ofm_microblock)
        case Pool():
            _check_size(operation.ifm, operation.ofm)
            return PoolStep(operation)
        case Elementwise():
            _check_size(operation.ifm, operation.ifm2, operation.ofm)
            return ElementwiseStep(operation)
        case Dma():
            return DmaStep(operation)
        case _:
            raise TypeError(f"{operation} is not executed by a step")
