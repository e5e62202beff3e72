# SPDX-License-Identifier: Apache-2.0
"""The operations of the NPU, with everything that decides their result: what the executor computes from.

`decode` makes them from a command stream's registers. Meanings: the project's facts, ethosu-npu.md §2.2,
§3, §6 and §7.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from npubox.hw.ethosu.commands import (
    Activation,
    ElementwiseMode,
    PoolMode,
    Rounding,
    ScaleMode,
    Upscale,
)


def tiles_used(
    height: int, width: int, width0: int, height0: int, height1: int
) -> tuple[bool, bool, bool, bool]:
    """Which of the four tiles a feature map of this size reaches into."""
    right = width > width0
    return True, right, height > height0, right and height > height1


@dataclass(frozen=True)
class FeatureMap:
    """A tensor in memory. Sizes in elements, bases and strides in bytes, bases relative to the region."""

    region: int
    bases: tuple[int, int, int, int]
    stride_y: int
    stride_x: int
    stride_c: int
    width0: int
    height0: int
    height1: int
    nhcwb16: bool
    element_size: int
    signed: bool
    zero_point: int
    height: int
    width: int
    depth: int

    @property
    def tiles_used(self) -> tuple[bool, bool, bool, bool]:
        return tiles_used(self.height, self.width, self.width0, self.height0, self.height1)

    def moved(self, shift: int) -> FeatureMap:
        """The same, `shift` bytes behind."""
        first, second, third, fourth = (base + shift for base in self.bases)
        return replace(self, bases=(first, second, third, fourth))

    @property
    def minimum(self) -> int:
        return -(1 << 8 * self.element_size - 1) if self.signed else 0

    @property
    def maximum(self) -> int:
        return (1 << 8 * self.element_size - (1 if self.signed else 0)) - 1


@dataclass(frozen=True)
class Window:
    """The kernel of a convolution or pool over the IFM: sizes undilated, in elements."""

    height: int
    width: int
    stride_y: int
    stride_x: int
    dilation_y: int
    dilation_x: int
    pad_top: int
    pad_left: int
    pad_bottom: int
    pad_right: int
    upscale: Upscale

    @property
    def padded(self) -> bool:
        return bool(self.pad_top or self.pad_left or self.pad_bottom or self.pad_right)

    @property
    def plain_1x1(self) -> bool:
        """Whether every output pixel is made of just the input pixel at the same place."""
        ones = (self.height, self.width, self.stride_y, self.stride_x)
        return ones == (1, 1, 1, 1) and not self.padded and self.upscale is Upscale.NONE


@dataclass(frozen=True)
class Output:
    """What happens to an accumulator: scale, zero point, clamp, table, store.

    `clamp` is None for a 32-bit OFM without a forced clip range, which saturates instead. `scale` is
    None where the result is not scaled; convolutions take theirs per channel from the scale stream.
    `table` is the LUT's number; its index is an 8-bit value or a 16-bit one (`table_16bit`).
    """

    rounding: Rounding
    scale: tuple[int, int] | None
    zero_point: int
    clamp: tuple[int, int] | None
    function: Activation
    table: int | None
    table_16bit: bool
    table_offset: int  # added to the clamped value to index an 8-bit table


@dataclass(frozen=True)
class Convolution:
    depthwise: bool
    ifm: FeatureMap
    ofm: FeatureMap
    window: Window
    output: Output
    weight_region: int
    scale_region: int
    weight_streams: tuple[tuple[int, int], ...]  # (offset in the region, bytes) for each core
    scale_streams: tuple[tuple[int, int], ...]
    block_depth: int
    part_kernel_first: bool
    accumulator_bits: int


@dataclass(frozen=True)
class Pool:
    mode: PoolMode
    ifm: FeatureMap
    ofm: FeatureMap
    window: Window
    output: Output
    accumulator_bits: int


@dataclass(frozen=True)
class Elementwise:
    """`swapped`: IFM2 is operand A. `scalar` replaces IFM2 where the constant flag is set."""

    mode: ElementwiseMode
    ifm: FeatureMap
    ifm2: FeatureMap | None
    scalar: int | None
    swapped: bool
    ofm: FeatureMap
    output: Output
    scale_mode: ScaleMode
    opa_scale: tuple[int, int] | None
    opb_scale: int | None


@dataclass(frozen=True)
class Dma:
    """`length` bytes from one region to another; target region None is the internal LUT RAM."""

    source_region: int
    source: int
    target_region: int | None
    target: int
    length: int


@dataclass(frozen=True)
class Stop:
    irq_mask: int


@dataclass(frozen=True)
class Irq:
    irq_mask: int


@dataclass(frozen=True)
class Shift:
    """By how many bytes the feature maps of one operation lie behind those of another."""

    ifm: int = 0
    ifm2: int = 0
    ofm: int = 0


Operation = Convolution | Pool | Elementwise | Dma | Stop | Irq
