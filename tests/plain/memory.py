# SPDX-License-Identifier: Apache-2.0
"""Regions, and feature maps in them: every element's address by the formula of facts §3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from npubox.hw.ethosu.commands import Cmd0, Cmd1, Format

from .errors import Fault
from .registers import Registers

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


class Memory:
    """The bytes of the regions, changed in place."""

    def __init__(self, regions: dict[int, Any]) -> None:
        self._regions = {
            n: np.frombuffer(memoryview(data).cast("B"), np.uint8) for n, data in regions.items()
        }

    def span(self, region: int, start: int, length: int) -> Bytes:
        """`length` bytes at `start`, as a view."""
        whole = self._whole(region)
        if start < 0 or start + length > len(whole):
            raise Fault(region, start, f"{length} bytes do not lie in the {len(whole)} of the region")
        return whole[start : start + length]

    def read(self, region: int, addresses: Ints, dtype: np.dtype[Any]) -> Ints:
        raw = self._whole(region)[self._each_byte(region, addresses, dtype.itemsize)]
        return raw.view(dtype)[..., 0].astype(np.int64)

    def write(self, region: int, addresses: Ints, values: Ints, dtype: np.dtype[Any]) -> None:
        raw = np.ascontiguousarray(values.astype(dtype)[..., np.newaxis]).view(np.uint8)
        self._whole(region)[self._each_byte(region, addresses, dtype.itemsize)] = raw

    def _whole(self, region: int) -> Bytes:
        if region not in self._regions:
            raise Fault(region, 0, "the region is not mapped")
        return self._regions[region]

    def _each_byte(self, region: int, addresses: Ints, size: int) -> Ints:
        low, high, end = int(addresses.min()), int(addresses.max()) + size, len(self._whole(region))
        if low < 0 or high > end:
            raise Fault(region, low if low < 0 else end, f"a feature map reaches {low:#x}..{high:#x}")
        return addresses[..., np.newaxis] + np.arange(size)


# Registers of the three feature maps: zero point, precision, region, tile sizes, then the two-word ones.
@dataclass(frozen=True)
class Names:
    precision: Cmd0
    zero_point: Cmd0
    region: Cmd0
    width0: Cmd0
    height0: Cmd0
    height1: Cmd0
    bases: tuple[Cmd1, Cmd1, Cmd1, Cmd1]
    stride_x: Cmd1
    stride_y: Cmd1
    stride_c: Cmd1


def _names(prefix: str) -> Names:
    short = {"precision": "PRECISION", "zero_point": "ZERO_POINT", "region": "REGION"}
    tiles = {"width0": "WIDTH0_M1", "height0": "HEIGHT0_M1", "height1": "HEIGHT1_M1"}
    return Names(
        **{key: Cmd0[f"{prefix}_{name}"] for key, name in (short | tiles).items()},
        bases=(
            Cmd1[f"{prefix}_BASE0"],
            Cmd1[f"{prefix}_BASE1"],
            Cmd1[f"{prefix}_BASE2"],
            Cmd1[f"{prefix}_BASE3"],
        ),
        stride_x=Cmd1[f"{prefix}_STRIDE_X"],
        stride_y=Cmd1[f"{prefix}_STRIDE_Y"],
        stride_c=Cmd1[f"{prefix}_STRIDE_C"],
    )


IFM_PRECISION_KNOWN, OFM_PRECISION_KNOWN = 0xC3CD, 0xC1C7
LARGEST = 1 << 24  # elements; so that a damaged stream costs an error and not the machine's memory

IFM, IFM2, OFM = _names("IFM"), _names("IFM2"), _names("OFM")


@dataclass(frozen=True)
class Precision:
    signed: bool
    size: int
    format: Format

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(f"<{'i' if self.signed else 'u'}{self.size}")


def precision(registers: Registers, names: Names) -> Precision:
    value = registers.u16(names.precision)
    if value & ~(OFM_PRECISION_KNOWN if names is OFM else IFM_PRECISION_KNOWN):
        registers.refuse(f"{names.precision.name} {value:#x} has unknown bits")
    # IFM and IFM2 have the element size in bits 3:2, the OFM in bits 2:1.
    size = 1 << (value >> (1 if names is OFM else 2) & 3)
    layout = value >> 6 & 3
    if layout > Format.NHCWB16:
        registers.refuse(f"{names.precision.name} has the unknown format {layout}")
    if size == 8 or (size == 4 and not value & 1):
        registers.refuse(f"{names.precision.name}: {size * 8}-bit {'' if value & 1 else 'un'}signed elements")
    return Precision(bool(value & 1), size, Format(layout))


def zero_point(registers: Registers, names: Names) -> int:
    return registers.i16(names.zero_point, precision(registers, names).signed)


def addresses(registers: Registers, names: Names, shape: tuple[int, int, int]) -> Ints:
    """The address of every element of (height, width, depth)."""
    height, width, depth = shape
    if height * width * depth > LARGEST:
        registers.refuse(f"a feature map of {height} x {width} x {depth} is too large to walk")
    kind = precision(registers, names)
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    right = x >= registers.m1(names.width0)
    bottom = y >= registers.m1(names.height0)
    y = y - np.where(bottom & ~right, registers.m1(names.height0), 0)
    if right.any():
        bottom = np.where(right, y >= registers.m1(names.height1), bottom)
        y = y - np.where(bottom & right, registers.m1(names.height1), 0)
        x = x - np.where(right, registers.m1(names.width0), 0)
    tile = right + 2 * bottom
    corner = np.zeros((height, width), np.int64)
    for number in np.unique(tile):
        corner[tile == number] = registers.address(names.bases[number])
    corner += y * registers.stride(names.stride_y)
    c = np.arange(depth, dtype=np.int64)
    if kind.format == Format.NHWC:
        corner += x * registers.stride(names.stride_x)
        return corner[..., np.newaxis] + c * kind.size
    corner += x * 16 * kind.size
    return corner[..., np.newaxis] + c // 16 * registers.stride(names.stride_c) + c % 16 * kind.size


def load(registers: Registers, memory: Memory, names: Names, shape: tuple[int, int, int]) -> Ints:
    where = addresses(registers, names, shape)
    return memory.read(registers.region(names.region), where, precision(registers, names).dtype)


def store(registers: Registers, memory: Memory, values: Ints) -> None:
    where = addresses(registers, OFM, (values.shape[0], values.shape[1], values.shape[2]))
    memory.write(registers.region(OFM.region), where, values, precision(registers, OFM).dtype)
