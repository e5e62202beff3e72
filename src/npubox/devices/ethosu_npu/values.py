# SPDX-License-Identifier: Apache-2.0
"""Between feature maps in memory and the plain kernels: numbers in, settings, tables."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from npubox.devices.ethosu_npu.kernels import feature_maps
from npubox.devices.ethosu_npu.kernels.scaling import Function, Post
from npubox.devices.ethosu_npu.memory import MapLayout, Regions, Shram
from npubox.devices.ethosu_npu.operations import FeatureMap, Output
from npubox.hw.ethosu.commands import Upscale

Int64Array = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]

TABLE_ENTRIES, TABLE16_ENTRIES = 256, 512

_NO_TABLE: Int32Array = np.zeros(0, np.int32)
_ENTRY_TYPES = {
    (1, False): np.uint8,
    (1, True): np.int8,
    (2, False): np.uint16,
    (2, True): np.int16,
    (4, False): np.int32,
    (4, True): np.int32,
}


def load_values(
    regions: Regions, layout: MapLayout, upscale: Upscale, shape: tuple[int, int], zero_point: int
) -> Int64Array:
    """The feature map as int64 numbers [y, x, c], upscaled to `shape` (height, width)."""
    source = regions.feature_map(layout)
    values = np.empty(layout.shape, np.int64)
    feature_maps.load(source, layout.vector, values)
    if upscale is Upscale.NONE:
        return values
    out = np.empty((*shape, layout.shape[2]), np.int64)
    feature_maps.upscale(values, int(upscale is Upscale.ZEROS), zero_point, out)
    return out


def post_vector(output: Output, scaled: bool = False) -> Int64Array:
    """The settings of the scaling kernels; `scaled` where they also apply the global scale."""
    post = np.zeros(len(Post), np.int64)
    if scaled and output.scale is not None:
        post[Post.SCALED] = 1
        post[Post.SCALE], post[Post.SHIFT] = output.scale
    post[Post.ROUNDING] = output.rounding
    post[Post.ZERO_POINT] = output.zero_point
    if output.clamp is not None:
        post[Post.CLAMP] = 1
        post[Post.LOW], post[Post.HIGH] = output.clamp
    if output.table is not None:
        post[Post.FUNCTION] = Function.TABLE16 if output.table_16bit else Function.TABLE8
    else:
        post[Post.FUNCTION] = output.function
    post[Post.TABLE_OFFSET] = output.table_offset
    return post


def output_table(output: Output, ofm: FeatureMap, shram: Shram) -> Int32Array:
    """The lookup table of an operation as int32 entries; empty if it has none."""
    if output.table is None:
        return _NO_TABLE
    if output.table_16bit:
        return shram.table(output.table, TABLE16_ENTRIES, np.int32)
    return shram.table(output.table, TABLE_ENTRIES, _ENTRY_TYPES[ofm.element_size, ofm.signed])
