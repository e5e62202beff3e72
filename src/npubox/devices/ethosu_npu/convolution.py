# SPDX-License-Identifier: Apache-2.0
"""Convolutions as executable steps: the byte kernels where they are proved exact, plain loops elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from npubox.devices.ethosu_npu.faults import Refused
from npubox.devices.ethosu_npu.kernels import bytes as byte_kernels
from npubox.devices.ethosu_npu.kernels import feature_maps, plain, scaling
from npubox.devices.ethosu_npu.memory import ByteArray, MapLayout, Regions, Shram
from npubox.devices.ethosu_npu.operations import Convolution, Output
from npubox.devices.ethosu_npu.parameters import CachedParameters, Parameters
from npubox.devices.ethosu_npu.values import load_values, output_table, post_vector
from npubox.hw.ethosu.commands import Activation, Rounding, Upscale

Int64Array = npt.NDArray[np.int64]

_NO_TABLE: ByteArray = np.zeros(0, np.uint8)
_MOST_PRODUCTS = 65793  # of an unsigned and a signed byte that are sure to fit int32


@dataclass(frozen=True)
class _ByteParameters:
    """Weights as the byte kernels want them, `packed` or (depthwise) `taps`; `channels` as they say."""

    packed: npt.NDArray[np.int8]
    taps: npt.NDArray[np.int16]
    channels: Int64Array


class ConvolutionStep:
    """CONV or DEPTHWISE, ready to run."""

    def __init__(self, operation: Convolution, ofm_microblock: int) -> None:
        self._operation = operation
        self._ifm = MapLayout(operation.ifm)
        self._ofm = MapLayout(operation.ofm)
        self._parameters = CachedParameters(operation, ofm_microblock, self._prepare)
        window = operation.window
        factor = 1 if window.upscale is Upscale.NONE else 2
        self._image_shape = (
            (operation.ofm.height - 1) * window.stride_y + (window.height - 1) * window.dilation_y + 1,
            (operation.ofm.width - 1) * window.stride_x + (window.width - 1) * window.dilation_x + 1,
            -(-operation.ifm.depth // 4) * 4,
        )
        self._ifm_shape = (
            self._image_shape[0] - window.pad_top - window.pad_bottom,
            self._image_shape[1] - window.pad_left - window.pad_right,
        )
        self._image: ByteArray | None = None
        self._factor = factor
        self._segments, self._segment_words = self._pieces()

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

    def _byte_zero_point(self) -> int:
        ifm = self._operation.ifm
        return ifm.zero_point + (128 if ifm.signed else 0)

    def _prepare(self, parameters: Parameters) -> Parameters | _ByteParameters:
        """Choose the path: bytes only where every sum provably fits int32 and nothing unusual is asked."""
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
            and output.rounding is not Rounding.TRUNCATE
            and (output.function is Activation.NONE or _byte_table(output))
            and int(parameters.scale.max(initial=0)) < 1 << 31
            and int(magnitude.max(initial=0)) < 1 << 31
        )
        if not simple:
            return parameters
        offsets = np.zeros(ofm.depth, np.int64)
        packed, taps = np.zeros(0, np.int8), np.zeros((0, 0), np.int16)
        if operation.depthwise:
            if weights.shape[1] * weights.shape[2] * 255 * 255 >= 1 << 31:
                return parameters
            taps = parameters.weights.reshape(ofm.depth, -1).T.copy()
        else:
            if 4 * self._segments.size * self._segment_words >= _MOST_PRODUCTS:
                return parameters
            low, high = weights.min(axis=(1, 2, 3)), weights.max(axis=(1, 2, 3))
            if int((high - low).max(initial=0)) > 255:
                return parameters
            offsets = np.maximum(0, high - 127) + np.minimum(0, low + 128)
            packed = self._pack(weights, offsets)
        half, extra = _rounding_terms(parameters.shift, output.rounding)
        bias = parameters.bias - zero * weights.sum(axis=(1, 2, 3))
        channels = np.stack([bias, parameters.scale, parameters.shift, half, extra, offsets])
        return _ByteParameters(packed, taps, channels)

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
        if self._image is None:
            self._image = np.empty(self._image_shape, np.uint8)
        feature_maps.gather_bytes(
            source,
            self._ifm.vector,
            *self._ifm_shape,
            ifm.depth,
            int(window.upscale),
            window.pad_top,
            window.pad_left,
            self._byte_zero_point(),
            self._image,
        )
        table = _NO_TABLE
        if output.table is not None:
            table = (output_table(output, ofm, shram) & 0xFF).astype(np.uint8)
        finish = (output.zero_point, *output.clamp, table, output.table_offset, target, self._ofm.vector)
        if operation.depthwise:
            byte_kernels.depthwise(
                self._image,
                window.width,
                window.stride_y,
                window.stride_x,
                window.dilation_y,
                window.dilation_x,
                ofm.width,
                0,
                ofm.height,
                parameters.taps,
                parameters.channels,
                *finish,
            )
        else:
            byte_kernels.convolve(
                self._image,
                self._segments,
                self._segment_words,
                window.stride_y,
                window.stride_x,
                ofm.width,
                0,
                ofm.height * ofm.width,
                parameters.packed,
                parameters.channels,
                *finish,
            )

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
        scales = np.stack([parameters.bias, parameters.scale, parameters.shift])
        out = np.empty(self._ofm.shape, np.int32)
        failed = scaling.finish_channels(
            sums.reshape(-1, ofm.depth),
            scales,
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


def _rounding_terms(shift: Int64Array, rounding: Rounding) -> tuple[Int64Array, Int64Array]:
    """`half` and the double rounding's extra term for each channel's shift (facts §6, d = 0)."""
    one = np.int64(1)
    half = np.where(shift > 0, one << np.maximum(shift - 1, 0), 0)
    extra = np.where(shift > 31, one << 30, 0) if rounding is Rounding.DOUBLE else np.zeros_like(shift)
    return half, extra
