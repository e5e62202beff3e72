# SPDX-License-Identifier: Apache-2.0
"""What the NPU sees of memory: its DMA address space as numpy views, its region bases, its SHRAM."""

from __future__ import annotations

import copy
from itertools import pairwise
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from npubox.bus.port import Prot
from npubox.bus.virtual import AddressSpace, DmaFault, DmaMapping
from npubox.devices.ethosu_npu.faults import Refused
from npubox.devices.ethosu_npu.kernels.feature_maps import Map
from npubox.devices.ethosu_npu.operations import FeatureMap

ByteArray = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]

LUT_BYTES = 2048
ADDRESS_END = 1 << 40
KEPT_REGIONS = 64


class Memory:
    """Views of device memory, range-checked before any kernel touches them."""

    def __init__(self, dma: AddressSpace) -> None:
        self._dma = dma
        self._arrays: WeakKeyDictionary[DmaMapping, ByteArray] = WeakKeyDictionary()
        self._regions: dict[tuple[int, ...], Regions] = {}
        self._generation = dma.generation

    def view(self, address: int, size: int, write: bool = False) -> ByteArray:
        """`size` bytes at a device address, uint8, the very pages. Raises DmaFault."""
        if address < 0 or address + size > ADDRESS_END:
            raise DmaFault(address, size, write, "outside the 40-bit address range")
        mapping = self._dma.find(address, size, write)
        array = self._arrays.get(mapping)
        if array is None:
            array = np.frombuffer(mapping.memory, np.uint8)
            self._arrays[mapping] = array
        start = address - mapping.address
        return array[start : start + size]

    def regions(self, bases: tuple[int, ...]) -> Regions:
        """The regions with these base addresses, as the address space is now."""
        generation = self._dma.generation
        if generation != self._generation or len(self._regions) > KEPT_REGIONS:
            self._regions.clear()
            self._generation = generation
        regions = self._regions.get(bases)
        if regions is None:
            regions = self._regions[bases] = Regions(self, bases)
        return regions

    def window(self, address: int) -> tuple[int, int, int, int]:
        """What of the buffer around `address` can be reached from it: see `kernels.program.Window`."""
        try:
            mapping = self._dma.find(address, 1)
        except DmaFault:
            return 0, 0, -1, 0
        host = self.view(mapping.address, mapping.size).ctypes.data
        before = address - mapping.address
        return host + before, before, mapping.size - before, int(bool(mapping.prot & Prot.WRITE))


class Regions:
    """The region base addresses of a run; `windows` is what they reach, for `kernels.program`."""

    def __init__(self, memory: Memory, bases: tuple[int, ...]) -> None:
        self._memory = memory
        self._bases = bases
        self.windows: Int64Array = np.array([memory.window(base) for base in bases], np.int64)

    def view(self, region: int, offset: int, size: int, write: bool = False) -> ByteArray:
        """`size` bytes from `offset` of a region. Raises DmaFault."""
        return self._memory.view(self._bases[region] + offset, size, write)

    def feature_map(self, layout: MapLayout, write: bool = False) -> ByteArray:
        """The bytes that `layout` spans, for the kernels together with `layout.vector`."""
        return self._memory.view(self._bases[layout.region] + layout.start, layout.size, write)

    def span(self, layout: MapLayout) -> tuple[int, int]:
        """First and end device address of a feature map."""
        start = self._bases[layout.region] + layout.start
        return start, start + layout.size


def elements_overlap(fm: FeatureMap) -> bool:
    """Whether two elements may share a byte: then what is left depends on the order of the writes.

    Each dimension, by the size of its stride, has to step over all smaller ones; tiles have to be apart.
    """
    es, spans = fm.element_size, []
    for tile, (height, width) in enumerate(MapLayout.tile_sizes(fm)):
        if not height or not width:
            continue
        if fm.nhcwb16:
            inner = min(16, fm.depth) * es
            dimensions = [(width, 16 * es), (-(-fm.depth // 16), fm.stride_c), (height, fm.stride_y)]
        else:
            inner = fm.depth * es
            dimensions = [(width, fm.stride_x), (height, fm.stride_y)]
        low, extent = fm.bases[tile], inner
        for size, stride in sorted(dimensions, key=lambda dimension: abs(dimension[1])):
            if size > 1 and abs(stride) < extent:
                return True
            extent += (size - 1) * abs(stride)
            low += min(0, (size - 1) * stride)
        spans.append((low, low + extent))
    spans.sort()
    return any(end > start for (_, end), (start, _) in pairwise(spans))


class MapLayout:
    """Where a feature map lies in its region: the span of bytes, and the kernels' vector within it."""

    def __init__(self, fm: FeatureMap) -> None:
        es = fm.element_size
        step_x = 16 * es if fm.nhcwb16 else fm.stride_x
        low_c, high_c = self._channel_span(fm)
        starts, ends = [], []
        used = []
        for tile, (height, width) in enumerate(self.tile_sizes(fm)):
            used.append(height > 0 and width > 0)
            if used[-1]:
                across = [0, (height - 1) * fm.stride_y]
                along = [0, (width - 1) * step_x]
                starts.append(fm.bases[tile] + min(across) + min(along) + low_c)
                ends.append(fm.bases[tile] + max(across) + max(along) + high_c)
        self.region = fm.region
        self.start = min(starts)
        self.size = max(ends) - self.start
        self.shape = (fm.height, fm.width, fm.depth)
        bases = [base - self.start if here else 0 for base, here in zip(fm.bases, used, strict=True)]
        self.vector: Int64Array = np.zeros(len(Map), np.int64)
        self.vector[:] = (
            *bases,
            fm.stride_y,
            step_x,
            fm.stride_c,
            fm.width0,
            fm.height0,
            fm.height1,
            fm.nhcwb16,
            es,
            fm.signed,
        )
        if self.start < -ADDRESS_END or self.size > ADDRESS_END:
            raise Refused("a feature map spans more than the address space")

    def moved(self, shift: int) -> MapLayout:
        """The same, `shift` bytes behind in the region."""
        if not shift:
            return self
        other = copy.copy(self)
        other.start += shift
        return other

    @staticmethod
    def tile_sizes(fm: FeatureMap) -> list[tuple[int, int]]:
        """Height and width of the part of the map that lies in each of the four tiles."""
        left, right = min(fm.width, fm.width0), max(0, fm.width - fm.width0)
        return [
            (min(fm.height, fm.height0), left),
            (min(fm.height, fm.height1), right),
            (max(0, fm.height - fm.height0), left),
            (max(0, fm.height - fm.height1), right),
        ]

    @staticmethod
    def _channel_span(fm: FeatureMap) -> tuple[int, int]:
        """Lowest offset of a channel in a pixel, and the end of the highest one."""
        es = fm.element_size
        if not fm.nhcwb16:
            return 0, fm.depth * es
        last = (fm.depth - 1) // 16
        ends = [last * fm.stride_c + ((fm.depth - 1) % 16 + 1) * es]
        ends += [block * fm.stride_c + 16 * es for block in {0, last - 1} if 0 <= block < last]
        return min(0, last * fm.stride_c), max(ends)


class Shram:
    """A core's own memory, of which only the lookup tables in its last 2 KiB have a lasting content."""

    def __init__(self, kib: int) -> None:
        self._table_base = (kib - 2) * 1024
        self._tables = np.zeros(LUT_BYTES, np.uint8)
        self.address: int = self._tables.ctypes.data

    def clear(self) -> None:
        self._tables[:] = 0

    def load(self, offset: int, data: ByteArray) -> None:
        """A DMA to the internal memory, by absolute SHRAM offset."""
        start = self.table_offset(offset, len(data))
        self._tables[start : start + len(data)] = data

    def table_offset(self, offset: int, size: int) -> int:
        """Where in the lookup tables `size` bytes at SHRAM `offset` lie. Raises Refused."""
        start = offset - self._table_base
        if start < 0 or start + size > LUT_BYTES:
            raise Refused(
                f"a DMA to {size} bytes of SHRAM at {offset:#x}, outside the lookup tables at"
                f" {self._table_base:#x}, is not modelled"
            )
        return start

    def table(self, number: int, entries: int, dtype: npt.DTypeLike) -> npt.NDArray[np.int32]:
        """`entries` elements of table `number` as int32."""
        size = entries * np.dtype(dtype).itemsize
        start = 256 * number
        if start + size > LUT_BYTES:
            raise Refused(f"table {number} of {size} bytes runs past the end of the lookup tables")
        return self._tables[start : start + size].view(dtype).astype(np.int32)
