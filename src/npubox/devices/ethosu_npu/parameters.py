# SPDX-License-Identifier: Apache-2.0
"""What a convolution reads besides its IFM: weights and per-channel scales, decoded and remembered.

Decoded values are used only while the bytes they came from are still in device memory (compared before
every use): programs write through mappings that nobody sees.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from npubox.devices.ethosu_npu.faults import Refused
from npubox.devices.ethosu_npu.memory import ByteArray, Regions
from npubox.devices.ethosu_npu.operations import Convolution
from npubox.devices.ethosu_npu.weights import WeightOrder, read_weights

Int16Array = npt.NDArray[np.int16]
Int64Array = npt.NDArray[np.int64]

Prepared = TypeVar("Prepared")

SCALE_RECORD = 10
MOST_WEIGHTS = 1 << 26

_libc = ctypes.CDLL(None)
_memcmp = _libc.memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_memcmp.restype = ctypes.c_int


def same_bytes(first: ByteArray, second: ByteArray) -> bool:
    """Whether two contiguous byte arrays hold the same bytes."""
    return first.size == second.size and not _memcmp(first.ctypes.data, second.ctypes.data, first.size)


@dataclass(frozen=True)
class Parameters:
    """weights[o, ky, kx, i] int16; bias int64, scale (unsigned 32 bit) and shift, one a channel."""

    weights: Int16Array
    bias: Int64Array
    scale: Int64Array
    shift: Int64Array

    @cached_property
    def channels(self) -> Int64Array:
        """int64[3, channels]: bias, scale, shift, as `finish_channels` wants them."""
        return np.stack([self.bias, self.scale, self.shift])


def read_scales(streams: list[ByteArray], depth: int) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Bias, scale and shift of each channel; core n's stream holds channels n, n + cores, ..."""
    records = np.zeros((depth, SCALE_RECORD), np.int64)
    for core, stream in enumerate(streams):
        count = len(range(core, depth, len(streams)))
        if len(stream) < count * SCALE_RECORD:
            raise Refused(f"its scale stream of {len(stream)} bytes is too short for {count} channels")
        records[core :: len(streams)] = stream[: count * SCALE_RECORD].reshape(count, SCALE_RECORD)
    places = np.int64(1) << 8 * np.arange(5, dtype=np.int64)
    bias = records[:, :5] @ places
    scale = records[:, 5:9] @ places[:4]
    return (bias ^ (1 << 39)) - (1 << 39), scale, records[:, 9] & 0x3F


def weight_order(operation: Convolution, ofm_microblock: int) -> WeightOrder:
    """The order of the weights in the streams of `operation`."""
    window = operation.window
    return WeightOrder(
        kernel_height=window.height,
        kernel_width=window.width,
        ifm_depth=operation.ifm.depth,
        ofm_depth=operation.ofm.depth,
        ofm_block_depth=operation.block_depth,
        dilation_y=window.dilation_y,
        dilation_x=window.dilation_x,
        part_kernel_first=operation.part_kernel_first,
        depthwise=operation.depthwise,
        ifm_16bit=operation.ifm.element_size == 2,
        ofm_microblock=ofm_microblock,
        cores=len(operation.weight_streams),
    )


class CachedParameters(Generic[Prepared]):
    """The parameters of one operation, prepared once by `prepare` and again when their bytes change."""

    def __init__(
        self, operation: Convolution, ofm_microblock: int, prepare: Callable[[Parameters], Prepared]
    ) -> None:
        self._operation = operation
        self._order = weight_order(operation, ofm_microblock)
        self._prepare = prepare
        self._seen: list[ByteArray] = []
        self._prepared: Prepared | None = None
        depth = 1 if operation.depthwise else operation.ifm.depth
        if operation.ofm.depth * depth * operation.window.height * operation.window.width > MOST_WEIGHTS:
            raise Refused("a convolution of more than 64 Mi weights is not modelled")

    @property
    def places(self) -> list[tuple[int, int]]:
        """(region, offset) of every stream, in the order of `copies`."""
        operation = self._operation
        weights = [(operation.weight_region, at) for at, _ in operation.weight_streams]
        return weights + [(operation.scale_region, at) for at, _ in operation.scale_streams]

    @property
    def copies(self) -> list[ByteArray]:
        """The bytes that `prepared` was made from."""
        return self._seen

    @property
    def prepared(self) -> Prepared | None:
        """What `prepare` made at the last `read`."""
        return self._prepared

    def read(self, regions: Regions) -> Prepared:
        """What `prepare` made of the bytes that are in device memory now. Raises DmaFault, Refused."""
        operation = self._operation
        weights = [regions.view(operation.weight_region, at, size) for at, size in operation.weight_streams]
        scales = [regions.view(operation.scale_region, at, size) for at, size in operation.scale_streams]
        now = weights + scales
        if self._prepared is None or not all(map(same_bytes, now, self._seen)):
            self._prepared = None
            self._seen = [view.copy() for view in now]
            copies = self._seen[: len(weights)]
            decoded = read_weights(self._order, copies)
            bias, scale, shift = read_scales(self._seen[len(weights) :], operation.ofm.depth)
            self._prepared = self._prepare(Parameters(decoded, bias, scale, shift))
        return self._prepared
