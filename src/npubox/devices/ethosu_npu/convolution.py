# SPDX-License-Identifier: Apache-2.0
"""Convolutions as executable steps: the byte kernels where they are proved exact, plain loops elsewhere."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from npubox.devices.ethosu_npu.faults import Refused
from npubox.devices.ethosu_npu.kernels import bytes as byte_kernels
from npubox.devices.ethosu_npu.kernels import feature_maps, plain, scaling
from npubox.devices.ethosu_npu.kernels.program import Col, Opcode
from npubox.devices.ethosu_npu.memory import ByteArray, MapLayout, Regions, Shram
from npubox.devices.ethosu_npu.operations import Convolution, Output, Shift
from npubox.devices.ethosu_npu.parameters import CachedParameters, Parameters
from npubox.devices.ethosu_npu.program import Row, Scratch, padded
from npubox.devices.ethosu_npu.values import TABLE16_ENTRIES, load_values, output_table, post_vector
from npubox.devices.simd import LANES
from npubox.hw.ethosu.commands import Activation, Rounding, Upscale

Int64Array = npt.NDArray[np.int64]

_NO_TABLE: ByteArray = np.zeros(0, np.uint8)
_NO_WEIGHTS: npt.NDArray[np.int8] = np.zeros(0, np.int8)


@dataclass(frozen=True)
class _ByteParameters:
    """Weights and constants as the byte kernels document them; `second` only for depthwise."""

    weights: npt.NDArray[np.int8]
    second: npt.NDArray[np.int8]
    constants: ByteArray
    offset_weights: bool


class ConvolutionStep:
    """CONV or DEPTHWISE, ready to run."""

    def __init__(self, operation: Convolution, ofm_microblock: int) -> None:
        self._operation = operation
        self._ifm = MapLayout(operation.ifm)
        self._ofm = MapLayout(operation.ofm)
        self._parameters = CachedParameters(operation, ofm_microblock, self._prepare)
        window = operation.window
        lanes = LANES if operation.depthwise else 4
        self._image_shape = (
            (operation.ofm.height - 1) * window.stride_y + (window.height - 1) * window.dilation_y + 1,
            (operation.ofm.width - 1) * window.stride_x + (window.width - 1) * window.dilation_x + 1,
            -(-operation.ifm.depth // lanes) * lanes,
        )
        self._ifm_shape = (
            self._image_shape[0] - window.pad_top - window.pad_bottom,
            self._image_shape[1] - window.pad_left - window.pad_right,
        )
        self._segments, self._segment_words = self._pieces()
        self._taps = self._tap_offsets()

    def moved(self, shift: Shift) -> ConvolutionStep:
        """It shares the decoded weights."""
        other = copy.copy(self)
        other._ifm = self._ifm.moved(shift.ifm)
        other._ofm = self._ofm.moved(shift.ofm)
        return other

    def run(self, regions: Regions, shram: Shram) -> None:
        parameters = self._parameters.read(regions)
        if isinstance(parameters, _ByteParameters):
            self._run_bytes(parameters, regions, shram)
        else:
            self._run_plain(parameters, regions, shram)

    def _pieces(self) -> tuple[Int64Array, int]:
        """Byte offsets of the window's contiguous pieces in the image, and their length in words."""
        window, (_, columns, lanes) = self._operation.window, self._image_shape
        rows = np.arange(window.height, dtype=np.int64) * (window.dilation_y * columns * lanes)
        if window.dilation_x == 1:
            return rows, window.width * lanes // 4
        taps = np.arange(window.width, dtype=np.int64) * (window.dilation_x * lanes)
        return (rows[:, None] + taps[None, :]).reshape(-1), lanes // 4

    def _tap_offsets(self) -> Int64Array:
        """Byte offset in the image of every element of the window, padded to a multiple of 4."""
        window, (_, columns, lanes) = self._operation.window, self._image_shape
        y, x = np.divmod(np.arange(window.height * window.width, dtype=np.int64), window.width)
        offsets = (y * window.dilation_y * columns + x * window.dilation_x) * lanes
        return np.pad(offsets, (0, -offsets.size % 4))

    def _byte_zero_point(self) -> int:
        ifm = self._operation.ifm
        return ifm.zero_point + (128 if ifm.signed else 0)

    def _prepare(self, parameters: Parameters) -> Parameters | _ByteParameters:
        """Choose the path: bytes only where every sum and every scaled sum provably fits int32, and
        nothing unusual is asked."""
        operation = self._operation
        ifm, ofm, output = operation.ifm, operation.ofm, operation.output
        zero = self._byte_zero_point()
        weights = parameters.weights.astype(np.int64)
        magnitude = np.abs(weights).sum(axis=(1, 2, 3)) * max(zero, 255 - zero) + np.abs(parameters.bias)
        simple = (
            ifm.element_size == 1
            and ofm.element_size == 1
            and 0 <= zero <= 255
            and output.clamp is not None
            and (output.function is Activation.NONE or _byte_table(output))
            and int(parameters.scale.max(initial=0)) < 1 << 31
            and int(magnitude.max(initial=0)) < 1 << 31
            and int((magnitude * parameters.scale >> parameters.shift).max(initial=0)) < 1 << 30
        )
        if not simple:
            return parameters
        offsets = np.zeros(ofm.depth, np.int64)
        second = _NO_WEIGHTS
        if operation.depthwise:
            packed, second = _pack_taps(parameters.weights.reshape(ofm.depth, -1))
        else:
            low, high = weights.min(axis=(1, 2, 3)), weights.max(axis=(1, 2, 3))
            if int((high - low).max(initial=0)) > 255:
                return parameters
            offsets = np.maximum(0, high - 127) + np.minimum(0, low + 128)
            packed = self._pack(weights, offsets)
        bias = parameters.bias - zero * weights.sum(axis=(1, 2, 3))
        double = output.rounding is Rounding.DOUBLE
        extra = np.where(double & (parameters.shift > 31), np.int64(1) << 30, 0)
        constants = byte_kernels.pack_parameters(bias, parameters.scale, parameters.shift, extra, offsets)
        return _ByteParameters(packed, second, constants, bool(offsets.any()))

    def _pack(self, weights: Int64Array, offsets: Int64Array) -> npt.NDArray[np.int8]:
        """[o, ky, kx, i] -> for each block of 64 channels [words][channels][4], see the byte kernel.

        Each channel's offset is taken off its weights, in the surplus lanes too (their weight is 0).
        """
        depth, height, width, lanes = weights.shape
        padded = np.zeros((-(-depth // 16) * 16, height, width, self._image_shape[2]), np.int64)
        padded[:depth, :, :, :lanes] = weights
        padded[:depth] -= offsets[:, None, None, None]
        padded = padded.astype(np.int8)
        words = padded.reshape(padded.shape[0], -1, 4).transpose(1, 0, 2)
        blocks = [
            words[:, first : first + byte_kernels.BLOCK].reshape(-1)
            for first in range(0, padded.shape[0], byte_kernels.BLOCK)
        ]
        return np.concatenate(blocks)

    def _run_bytes(self, parameters: _ByteParameters, regions: Regions, shram: Shram) -> None:
        operation = self._operation
        window, output, ifm, ofm = operation.window, operation.output, operation.ifm, operation.ofm
        assert output.clamp is not None
        source = regions.feature_map(self._ifm)
        target = regions.feature_map(self._ofm, write=True)
        image = np.empty(self._image_shape, np.uint8)
        feature_maps.gather_bytes(
            source,
            self._ifm.vector,
            *self._ifm_shape,
            ifm.depth,
            int(window.upscale),
            window.pad_top,
            window.pad_left,
            self._byte_zero_point(),
            image,
        )
        table = _NO_TABLE
        if output.table is not None:
            table = (output_table(output, ofm, shram) & 0xFF).astype(np.uint8)
        finish = (output.zero_point, *output.clamp, table, output.table_offset, target, self._ofm.vector)
        if operation.depthwise:
            byte_kernels.depthwise(
                image,
                self._taps,
                window.stride_y,
                window.stride_x,
                ofm.width,
                0,
                ofm.height,
                parameters.weights,
                parameters.second,
                parameters.constants,
                ofm.depth,
                *finish,
            )
        else:
            byte_kernels.convolve(
                image,
                self._segments,
                self._segment_words,
                window.stride_y,
                window.stride_x,
                ofm.width,
                0,
                ofm.height * ofm.width,
                parameters.weights,
                parameters.constants,
                ofm.depth,
                parameters.offset_weights,
                *finish,
            )

    @property
    def scratch_bytes(self) -> int:
        image = int(np.prod(self._image_shape, dtype=np.int64))
        values, results = (int(np.prod(layout.shape, dtype=np.int64)) for layout in (self._ifm, self._ofm))
        return max(image, padded(8 * values, 8 * results, 4 * results, 4 * TABLE16_ENTRIES))

    def row(self, scratch: Scratch) -> Row | None:
        parameters = self._parameters.prepared
        if isinstance(parameters, _ByteParameters):
            row = self._byte_row(parameters, scratch)
        elif parameters is None or self._operation.window.upscale is not Upscale.NONE:
            return None
        else:
            row = self._plain_row(parameters, scratch)
        row.ofm(self._operation.ofm, self._ofm)
        row.table(self._operation.output, self._operation.ofm)
        row.streams(self._parameters.places, self._parameters.copies)
        return row

    def _byte_row(self, parameters: _ByteParameters, scratch: Scratch) -> Row:
        operation = self._operation
        window, output = operation.window, operation.output
        assert output.clamp is not None
        row = Row(Opcode.DEPTHWISE if operation.depthwise else Opcode.CONVOLVE)
        row.ifm(self._ifm, *self._ifm_shape)
        places = self._taps if operation.depthwise else self._segments
        row.cells[Col.BUFFER0] = scratch.take(int(np.prod(self._image_shape, dtype=np.int64)))
        row.cells[Col.BUFFER1] = row.address(places)
        row.cells[Col.BUFFER2] = row.address(parameters.weights)
        row.cells[Col.BUFFER3] = row.address(parameters.constants)
        row.cells[Col.BUFFER4] = row.address(parameters.second)
        row.cells[Col.BUFFER5] = output.table_offset
        row.arguments(
            *self._image_shape,
            int(window.upscale),
            window.pad_top,
            window.pad_left,
            self._byte_zero_point(),
            places.size,
            self._segment_words,
            window.stride_y,
            window.stride_x,
            parameters.weights.size,
            parameters.constants.size,
            parameters.second.size if operation.depthwise else int(parameters.offset_weights),
            output.zero_point,
            *output.clamp,
        )
        return row

    def _plain_row(self, parameters: Parameters, scratch: Scratch) -> Row:
        operation = self._operation
        window, ofm = operation.window, operation.ofm
        row = Row(Opcode.PLAIN_CONVOLVE)
        row.ifm(self._ifm, *self._ifm.shape[:2])
        results = ofm.height * ofm.width * ofm.depth
        row.cells[Col.BUFFER0] = scratch.take(8 * int(np.prod(self._ifm.shape, dtype=np.int64)))
        row.cells[Col.BUFFER5] = scratch.take(8 * results)
        row.cells[Col.BUFFER2] = scratch.take(4 * results)
        row.cells[Col.BUFFER3] = scratch.take(4 * TABLE16_ENTRIES)
        row.cells[Col.BUFFER1] = row.address(post_vector(operation.output))
        row.cells[Col.BUFFER4] = row.address(parameters.weights)
        row.cells[Col.BUFFER6] = row.address(parameters.channels)
        row.arguments(
            *parameters.weights.shape,
            operation.ifm.zero_point,
            int(operation.depthwise),
            window.stride_y,
            window.stride_x,
            window.dilation_y,
            window.dilation_x,
            window.pad_top,
            window.pad_left,
            1 << (operation.accumulator_bits - 1),
        )
        return row

    def _run_plain(self, parameters: Parameters, regions: Regions, shram: Shram) -> None:
        operation = self._operation
        window, ofm = operation.window, operation.ofm
        values = load_values(regions, self._ifm, window.upscale, self._ifm_shape, operation.ifm.zero_point)
        target = regions.feature_map(self._ofm, write=True)
        sums = np.empty(self._ofm.shape, np.int64)
        plain.convolve(
            values,
            parameters.weights,
            operation.ifm.zero_point,
            operation.depthwise,
            window.stride_y,
            window.stride_x,
            window.dilation_y,
            window.dilation_x,
            window.pad_top,
            window.pad_left,
            sums,
        )
        out = np.empty(self._ofm.shape, np.int32)
        failed = scaling.finish_channels(
            sums.reshape(-1, ofm.depth),
            parameters.channels,
            post_vector(operation.output),
            output_table(operation.output, ofm, shram),
            1 << (operation.accumulator_bits - 1),
            out.reshape(-1, ofm.depth),
        )
        if failed:
            raise Refused(f"an accumulator leaves {operation.accumulator_bits} bits, which is not modelled")
        feature_maps.store(target, self._ofm.vector, out)


def _byte_table(output: Output) -> bool:
    return output.table is not None and not output.table_16bit


def _pack_taps(weights: npt.NDArray[np.int16]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """[channel, tap] of 9 bits -> two int8[vectors][taps / 4][16][4] that add up to them.

    The second is empty where the first is enough.
    """
    depth, taps = weights.shape
    padded = np.zeros((-(-depth // LANES) * LANES, -(-taps // 4) * 4), np.int16)
    padded[:depth, :taps] = weights
    first = np.clip(padded, -128, 127)

    def packed(plane: npt.NDArray[np.int16]) -> npt.NDArray[np.int8]:
        vectors = plane.reshape(-1, LANES, plane.shape[1] // 4, 4).transpose(0, 2, 1, 3)
        return np.ascontiguousarray(vectors.astype(np.int8)).reshape(-1)

    rest = padded - first
    return packed(first), packed(rest) if rest.any() else _NO_WEIGHTS
