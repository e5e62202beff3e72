# SPDX-License-Identifier: Apache-2.0
"""Operations that map bytes to bytes, as tables: made by the plain kernels, from all inputs there are.

An element-wise operation, a copy or a rescaling of 8-bit elements is a function of one or two bytes;
its 256 or 65536 results are computed once, with the arithmetic of the plain path, and looked up.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from npubox.devices.ethosu_npu.kernels import bytes as byte_kernels
from npubox.devices.ethosu_npu.memory import ByteArray, MapLayout, Regions
from npubox.devices.ethosu_npu.operations import FeatureMap
from npubox.devices.ethosu_npu.parameters import same_bytes

Int64Array = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]
Results = Callable[[Int64Array, Int64Array, Int32Array], Int32Array]

FEWEST_PAIRS = 4096  # below, a table of 65536 entries costs more than it saves


def all_values(fm: FeatureMap) -> Int64Array:
    """The 256 element values in the order of their bytes."""
    codes = np.arange(256, dtype=np.uint8)
    return (codes.view(np.int8) if fm.signed else codes).astype(np.int64)


def byte_sized(*maps: FeatureMap | None) -> bool:
    return all(fm is None or fm.element_size == 1 for fm in maps)


class ByteMap:
    """The table of one operation; `results` gives int32[n] results of int64[n] elements.

    `results(first, second, lut)`: for an operation of one byte `second` is unused. Made again when the
    lookup table in SHRAM, which the operation may end in, has changed.
    """

    def __init__(self, ifm: FeatureMap, ifm2: FeatureMap | None, results: Results) -> None:
        first = all_values(ifm)
        if ifm2 is None:
            self._first, self._second = first, first
        else:
            self._first, self._second = np.repeat(first, 256), np.tile(all_values(ifm2), 256)
        self._results = results
        self._lut: Int32Array | None = None
        self._table: ByteArray = np.zeros(0, np.uint8)

    @property
    def current(self) -> ByteArray:
        """The table as it was made last; empty before."""
        return self._table

    @property
    def made_with(self) -> ByteArray:
        """The bytes of the lookup table in SHRAM that `current` holds for; empty if there is none."""
        lut = self._lut if self._lut is not None else np.zeros(0, np.int32)
        return (lut & 0xFF).astype(np.uint8)

    def table(self, lut: Int32Array) -> ByteArray:
        """uint8[256] or uint8[65536]. Raises Refused where the operation refuses any of its inputs."""
        if self._lut is None or not same_bytes(self._lut.view(np.uint8), lut.view(np.uint8)):
            self._table = (self._results(self._first, self._second, lut) & 0xFF).astype(np.uint8)
            self._lut = lut
        return self._table


def run_map(
    regions: Regions, ifm: MapLayout, ofm: MapLayout, table: ByteArray, ifm2: MapLayout | None = None
) -> None:
    """Write the OFM from one or two operands by `table`."""
    source = regions.feature_map(ifm)
    second = regions.feature_map(ifm2) if ifm2 is not None else source
    target = regions.feature_map(ofm, write=True)
    if ifm2 is None:
        byte_kernels.map_elements(source, ifm.vector, table, target, ofm.vector, *ofm.shape)
        return
    step_y, step_x, step_c = (0 if size == 1 else 1 for size in ifm2.shape)
    byte_kernels.map_pairs(
        source,
        ifm.vector,
        second,
        ifm2.vector,
        step_y,
        step_x,
        step_c,
        table,
        target,
        ofm.vector,
        *ofm.shape,
    )


def safe_in_place(regions: Regions, ifm: MapLayout, ofm: MapLayout) -> bool:
    """Whether element order does not matter: the maps are apart, or the very same elements."""
    first, last = regions.span(ifm)
    start, end = regions.span(ofm)
    apart = last <= start or end <= first
    return apart or (first == start and np.array_equal(ifm.vector[:11], ofm.vector[:11]))
