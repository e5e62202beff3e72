# SPDX-License-Identifier: Apache-2.0
"""The sliding kernel: its registers, and the padded and upscaled IFM it moves over (facts §3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from npubox.hw.ethosu.commands import Cmd0, Upscale

from .memory import IFM, Ints, Memory, load, zero_point
from .registers import Registers

KERNEL_STRIDE_KNOWN = 0x27F
LARGEST_WALK = 1 << 33  # kernel elements times OFM elements


@dataclass(frozen=True)
class Kernel:
    """Sizes in elements (height, width), undilated; the padding top, left, bottom, right."""

    size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pad: tuple[int, int, int, int]
    part_kernel: bool


def read_kernel(registers: Registers) -> Kernel:
    bits = registers.u16(Cmd0.KERNEL_STRIDE)
    if bits & ~KERNEL_STRIDE_KNOWN or bits >> 5 & 1:
        registers.refuse(f"KERNEL_STRIDE {bits:#x}: decomposition and unknown bits were never verified")
    dilation = ((bits >> 4 & 1) + 1, (bits >> 3 & 1) + 1)
    spread = registers.u16(Cmd0.KERNEL_HEIGHT_M1), registers.u16(Cmd0.KERNEL_WIDTH_M1)
    return Kernel(
        size=(spread[0] // dilation[0] + 1, spread[1] // dilation[1] + 1),
        stride=((bits >> 1 & 1 | bits >> 8 & 2) + 1, (bits & 1 | bits >> 5 & 2) + 1),
        dilation=dilation,
        pad=(
            registers.u16(Cmd0.IFM_PAD_TOP),
            registers.u16(Cmd0.IFM_PAD_LEFT),
            registers.u16(Cmd0.IFM_PAD_BOTTOM),
            registers.u16(Cmd0.IFM_PAD_RIGHT),
        ),
        part_kernel=bool(bits >> 2 & 1),
    )


def ofm_shape(registers: Registers) -> tuple[int, int, int]:
    return (
        registers.m1(Cmd0.OFM_HEIGHT_M1),
        registers.m1(Cmd0.OFM_WIDTH_M1),
        registers.m1(Cmd0.OFM_DEPTH_M1),
    )


def padded_ifm(registers: Registers, memory: Memory, kernel: Kernel, fill: int) -> Ints:
    """The upscaled IFM, zero point and all, with `fill` in the padding."""
    ofm = ofm_shape(registers)
    top, left, bottom, right = kernel.pad
    spread = registers.m1(Cmd0.KERNEL_HEIGHT_M1), registers.m1(Cmd0.KERNEL_WIDTH_M1)
    height = (ofm[0] - 1) * kernel.stride[0] + spread[0] - top - bottom
    width = (ofm[1] - 1) * kernel.stride[1] + spread[1] - left - right
    if height < 1 or width < 1:
        registers.refuse(f"the IFM would have {height} rows and {width} columns")
    depth = registers.m1(Cmd0.IFM_DEPTH_M1)
    upscale = registers.u16(Cmd0.IFM_UPSCALE)
    if upscale == Upscale.NONE:
        ifm = load(registers, memory, IFM, (height, width, depth))
    elif upscale in (Upscale.NEAREST, Upscale.ZEROS):
        small = load(registers, memory, IFM, ((height + 1) // 2, (width + 1) // 2, depth))
        ifm = small.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
        if upscale == Upscale.ZEROS:
            ifm[1::2] = zero_point(registers, IFM)
            ifm[:, 1::2] = zero_point(registers, IFM)
    else:
        registers.refuse(f"IFM_UPSCALE {upscale} is not known")
    return np.pad(ifm, ((top, bottom), (left, right), (0, 0)), constant_values=fill)


def windows(registers: Registers, kernel: Kernel, padded: Ints) -> list[tuple[int, int, Ints]]:
    """For each kernel element (y, x) the IFM values that meet it, (OFM height, OFM width, depth)."""
    height, width, depth = ofm_shape(registers)
    if kernel.size[0] * kernel.size[1] * height * width * depth > LARGEST_WALK:
        registers.refuse(f"a kernel of {kernel.size} is too large to walk")
    found = []
    for y in range(kernel.size[0]):
        for x in range(kernel.size[1]):
            top, left = y * kernel.dilation[0], x * kernel.dilation[1]
            found.append(
                (
                    y,
                    x,
                    padded[
                        top : top + (height - 1) * kernel.stride[0] + 1 : kernel.stride[0],
                        left : left + (width - 1) * kernel.stride[1] + 1 : kernel.stride[1],
                    ],
                )
            )
    return found
