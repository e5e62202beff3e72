# SPDX-License-Identifier: Apache-2.0
"""What the driver checks in a command stream: for the U65 what mainline's does, or its frame alone.

`validate` walks the stream once. Registers it writes are remembered; each operation adds the highest byte it
touches to its regions, which SUBMIT compares with the buffers. It is exactly as strict as the kernel,
also where the hardware would need less or more: the end of a region is the last address plus one
whatever the element's size, a DMA without a region counts as internal memory, and weights of a second
core are not looked at. `frame` is for machines with the policy "hardware". Source: the project's facts
(ethosu-accel.md §4).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from npubox.hw.ethosu.commands import CMD1_CONTROL, INTERNAL_REGION_BIT, Cmd0, Cmd1, Format, StrideMode

REGIONS = 8
UNSET16 = 0xFFFF
UNSET32 = 0xFFFF_FFFF
UNSET64 = 0xFFFF_FFFF_FFFF_FFFF
_U64 = 1 << 64
_CMD1_LENGTHS = frozenset({Cmd1.WEIGHT_LENGTH, Cmd1.SCALE_LENGTH, Cmd1.DMA0_LEN})
_OPERATION_END = 0x100
_POOL_WITHOUT_IFM = 4
_BROADCAST_WITHOUT_IFM = 8
_MODES_WITHOUT_IFM2 = frozenset({5, 6, 7, 0x24})
_IFM2_SCALAR = 1 << 7
_WEIGHTS_FROM_IFM2 = 1 << 0
_GLOBAL_SCALE = 1 << 8


class Policy(StrEnum):
    """How much the driver refuses."""

    MAINLINE = "mainline"
    """What Linux 7.2 refuses: Ethos-U55, and the streams that its validator does not pass."""
    HARDWARE = "hardware"
    """Only what no NPU could start. What a job reaches is left to the DMA address space."""


@dataclass(frozen=True)
class CommandStream:
    """A stream that passed: `size` in bytes as it was handed in, and per region the highest byte used
    plus one (0 = unused) and whether it is written. Where its operations were not looked at, `checked`
    is False, no region has a size and each counts as written."""

    size: int
    region_size: tuple[int, ...]
    written: tuple[bool, ...]
    checked: bool = True


class Refused(OSError):  # noqa: N818 - it is an errno answer, not an error of ours
    """EINVAL with the byte offset of the command that the kernel's rules refuse."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(errno.EINVAL, f"command stream refused at offset {offset:#x}: {reason}")
        self.offset = offset


@dataclass(frozen=True)
class _FeatureMap:
    """Which registers describe one feature map, and where its element size is kept."""

    name: str
    region: Cmd0
    precision: Cmd0
    element_shift: int
    width0: Cmd0
    height0: Cmd0
    height1: Cmd0
    base: Cmd1
    stride_x: Cmd1
    stride_y: Cmd1
    stride_c: Cmd1


_IFM = _FeatureMap(
    "IFM",
    Cmd0.IFM_REGION,
    Cmd0.IFM_PRECISION,
    2,
    Cmd0.IFM_WIDTH0_M1,
    Cmd0.IFM_HEIGHT0_M1,
    Cmd0.IFM_HEIGHT1_M1,
    Cmd1.IFM_BASE0,
    Cmd1.IFM_STRIDE_X,
    Cmd1.IFM_STRIDE_Y,
    Cmd1.IFM_STRIDE_C,
)
_IFM2 = _FeatureMap(
    "IFM2",
    Cmd0.IFM2_REGION,
    Cmd0.IFM2_PRECISION,
    2,
    Cmd0.IFM2_WIDTH0_M1,
    Cmd0.IFM2_HEIGHT0_M1,
    Cmd0.IFM2_HEIGHT1_M1,
    Cmd1.IFM2_BASE0,
    Cmd1.IFM2_STRIDE_X,
    Cmd1.IFM2_STRIDE_Y,
    Cmd1.IFM2_STRIDE_C,
)
_OFM = _FeatureMap(
    "OFM",
    Cmd0.OFM_REGION,
    Cmd0.OFM_PRECISION,
    1,
    Cmd0.OFM_WIDTH0_M1,
    Cmd0.OFM_HEIGHT0_M1,
    Cmd0.OFM_HEIGHT1_M1,
    Cmd1.OFM_BASE0,
    Cmd1.OFM_STRIDE_X,
    Cmd1.OFM_STRIDE_Y,
    Cmd1.OFM_STRIDE_C,
)


def validate(data: bytes) -> CommandStream:
    """Check a stream as the kernel does; `Refused` (OSError EINVAL) where it would.

    A remainder of one to three bytes is ignored but counts in `size`.
    """
    words = struct.unpack_from(f"<{len(data) // 4}I", data)
    return _Walk(words).run(len(data))


def frame(data: bytes) -> CommandStream:
    """Check what any NPU needs of a stream: whole words, and OP_STOP as the last command and no earlier.
    `Refused` (OSError EINVAL) without."""
    if len(data) % 4:
        raise Refused(len(data) & ~3, "the stream is no whole number of words")
    words = struct.unpack(f"<{len(data) // 4}I", data)
    stops = [index for index, word in _commands(words) if word & 0xFFFF == Cmd0.OP_STOP]
    if stops != [len(words) - 1]:
        raise Refused(4 * (stops[0] if stops else len(words)), "OP_STOP is not the last command")
    return CommandStream(len(data), (0,) * REGIONS, (True,) * REGIONS, checked=False)


def _commands(words: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Each command's first word and its place, without the payloads."""
    index = 0
    while index < len(words):
        yield index, words[index]
        index += 2 if words[index] & CMD1_CONTROL else 1


class _Walk:
    def __init__(self, words: tuple[int, ...]) -> None:
        self._words = words
        self._offset = 0
        self._cmd0: dict[int, int] = {}
        self._cmd1: dict[int, int] = {}
        self._size = [0] * REGIONS
        self._written = [False] * REGIONS

    def run(self, size: int) -> CommandStream:
        words, index, last = self._words, 0, len(self._words) - 1
        while index <= last:
            word = words[index]
            code, parameter = word & 0xFFFF, word >> 16
            self._offset = 4 * index
            if code & CMD1_CONTROL:
                if index == last:
                    raise self._refuse("the payload of the last command is missing")
                index += 1
                self._write_cmd1(code, parameter, words[index])
            elif code == Cmd0.OP_STOP:
                if index != last:
                    raise self._refuse("OP_STOP before the end")
                return CommandStream(size, tuple(self._size), tuple(self._written))
            elif code < _OPERATION_END:
                self._operation(code, parameter)
            else:
                self._cmd0[code] = parameter
            index += 1
        raise self._refuse("OP_STOP is missing at the end")

    def _write_cmd1(self, code: int, parameter: int, payload: int) -> None:
        register = code & ~CMD1_CONTROL
        high = 0 if register in _CMD1_LENGTHS else (parameter & 0xFF) << 32
        self._cmd1[register] = high | payload

    def _operation(self, code: int, parameter: int) -> None:
        if code in (Cmd0.OP_CONV, Cmd0.OP_DEPTHWISE):
            self._convolution(parameter)
        elif code == Cmd0.OP_POOL:
            self._pool(parameter)
        elif code == Cmd0.OP_ELEMENTWISE:
            self._elementwise(parameter)
        elif code == Cmd0.OP_DMA_START:
            self._dma()
        elif code == Cmd0.OP_RESIZE:
            raise self._refuse("OP_RESIZE is not accepted")

    def _convolution(self, parameter: int) -> None:
        self._use_window(self._get(Cmd0.IFM_DEPTH_M1))
        if parameter & _WEIGHTS_FROM_IFM2:
            self._use_map(_IFM2, self._get(Cmd0.IFM_DEPTH_M1), 0, self._get(Cmd0.OFM_DEPTH_M1))
        else:
            self._use_stream("weights", Cmd0.WEIGHT_REGION, Cmd1.WEIGHT_BASE, Cmd1.WEIGHT_LENGTH)
        self._use_scales_and_ofm()

    def _pool(self, parameter: int) -> None:
        if parameter != _POOL_WITHOUT_IFM:
            self._use_window(self._get(Cmd0.IFM_DEPTH_M1))
        self._use_scales_and_ofm()

    def _elementwise(self, parameter: int) -> None:
        broadcast, broadcast2 = self._get(Cmd0.IFM_BROADCAST), self._get(Cmd0.IFM2_BROADCAST)
        if broadcast != _BROADCAST_WITHOUT_IFM:
            self._use_map(_IFM, *self._operand_extent(broadcast))
        if not broadcast2 & _IFM2_SCALAR and parameter not in _MODES_WITHOUT_IFM2:
            self._use_map(_IFM2, *self._operand_extent(broadcast2))
        self._use_ofm()

    def _operand_extent(self, broadcast: int) -> tuple[int, int, int]:
        height = 0 if broadcast & 1 else self._get(Cmd0.OFM_HEIGHT_M1)
        width = 0 if broadcast & 2 else self._get(Cmd0.OFM_WIDTH_M1)
        depth = 0 if broadcast & 4 else self._get(Cmd0.OFM_DEPTH_M1)
        return width, height, depth

    def _use_window(self, depth: int) -> None:
        stride = self._get(Cmd0.KERNEL_STRIDE)
        if stride == UNSET16:
            raise self._refuse("KERNEL_STRIDE is not set")
        stride_x = (stride >> 5 & 2) + (stride & 1) + 1
        stride_y = (stride >> 8 & 2) + (stride >> 1 & 1) + 1
        pad_x = self._pad(Cmd0.IFM_PAD_LEFT, 0x7F) + self._pad(Cmd0.IFM_PAD_RIGHT, 0xFF)
        pad_y = self._pad(Cmd0.IFM_PAD_TOP, 0x7F) + self._pad(Cmd0.IFM_PAD_BOTTOM, 0xFF)
        width = self._get(Cmd0.OFM_WIDTH_M1) * stride_x + self._get(Cmd0.KERNEL_WIDTH_M1) - pad_x
        height = self._get(Cmd0.OFM_HEIGHT_M1) * stride_y + self._get(Cmd0.KERNEL_HEIGHT_M1) - pad_y
        if width < 0 or height < 0:
            raise self._refuse("the padding is larger than the kernel's window")
        self._use_map(_IFM, width, height, depth)

    def _pad(self, register: Cmd0, mask: int) -> int:
        value = self._cmd0.get(register)
        return 0xFF if value is None else value & mask

    def _use_scales_and_ofm(self) -> None:
        if not self._get(Cmd0.OFM_PRECISION) & _GLOBAL_SCALE:
            self._use_stream("scales", Cmd0.SCALE_REGION, Cmd1.SCALE_BASE, Cmd1.SCALE_LENGTH)
        self._use_ofm()

    def _use_ofm(self) -> None:
        region = self._use_map(
            _OFM, self._get(Cmd0.OFM_WIDTH_M1), self._get(Cmd0.OFM_HEIGHT_M1), self._get(Cmd0.OFM_DEPTH_M1)
        )
        self._written[region] = True

    def _use_map(self, fm: _FeatureMap, x: int, y: int, c: int) -> int:
        region = self._region(fm.name, fm.region)
        tile = 0
        if x > (width0 := self._get(fm.width0)):
            x, tile = x - width0 - 1, 1
        height = self._get(fm.height1 if tile else fm.height0)
        if y > height:
            y, tile = y - height - 1, tile + 2
        base = self._address(fm.base + tile)
        if base == UNSET64:
            raise self._refuse(f"{fm.name}_BASE{tile} is not set")
        precision = self._get(fm.precision)
        element = 1 << (precision >> fm.element_shift & 3)
        address = base + y * self._address(fm.stride_y)
        layout = precision >> 6 & 3
        if layout == Format.NHWC:
            address += x * self._address(fm.stride_x) + c * element
        elif layout == Format.NHCWB16:
            address += c // 16 * self._address(fm.stride_c) + (16 * x + c % 16) * element
        self._touch(region, (address + 1) % _U64)
        return region

    def _use_stream(self, what: str, region: Cmd0, base: Cmd1, length: Cmd1) -> None:
        number = self._region(what, region)
        start, size = self._address(base), self._cmd1.get(length, UNSET32)
        if start == UNSET64 or size == UNSET32:
            raise self._refuse(f"{base.name} or {length.name} is not set")
        self._touch(number, start + size)

    def _dma(self) -> None:
        source, destination = self._get(Cmd0.DMA0_SRC_REGION), self._get(Cmd0.DMA0_DST_REGION)
        length = self._cmd1.get(Cmd1.DMA0_LEN, UNSET32)
        if length == UNSET32:
            raise self._refuse("DMA0_LEN is not set")
        mode = source >> 9 & 3
        if not source & INTERNAL_REGION_BIT:
            self._touch(
                source & 7, self._dma_end(mode, length, Cmd1.DMA0_SRC, Cmd1.DMA0_SKIP0, Cmd1.DMA0_SKIP1)
            )
        if not destination & INTERNAL_REGION_BIT:
            end = self._dma_end(mode, length, Cmd1.DMA0_DST, Cmd1.DMA0_DST_STRIDE0, Cmd1.DMA0_DST_STRIDE1)
            self._touch(destination & 7, end)
            self._written[destination & 7] = True

    def _dma_end(self, mode: int, length: int, base: Cmd1, stride0: Cmd1, stride1: Cmd1) -> int:
        if mode >= StrideMode.D2:
            length = self._dma_lines(length, stride0, Cmd0.DMA0_SIZE0)
        if mode == StrideMode.D3:
            length = self._dma_lines(length, stride1, Cmd0.DMA0_SIZE1)
        end = self._address(base) + length
        if end >= _U64:
            raise self._refuse(f"the DMA runs past the end of the address space from {base.name}")
        return end

    def _dma_lines(self, length: int, stride: Cmd1, size: Cmd0) -> int:
        step = self._cmd1.get(stride, UNSET64) & (1 << 40) - 1
        step -= (step & 1 << 39) << 1
        if length + step < 0:
            raise self._refuse(f"{stride.name} is negative beyond the length")
        return (length + step) * self._get(size)

    def _region(self, what: str, register: Cmd0) -> int:
        value = self._cmd0.get(register)
        if value is None:
            raise self._refuse(f"{register.name} is not set ({what})")
        return value & 7

    def _touch(self, region: int, end: int) -> None:
        self._size[region] = max(self._size[region], end)

    def _get(self, register: Cmd0) -> int:
        return self._cmd0.get(register, UNSET16)

    def _address(self, register: int) -> int:
        return self._cmd1.get(register, UNSET64)

    def _refuse(self, reason: str) -> Refused:
        return Refused(self._offset, reason)
