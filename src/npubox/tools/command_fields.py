# SPDX-License-Identifier: Apache-2.0
"""The fields inside each Ethos-U55 and U65 command, as one table.

A cmd0's fields lie in its 16-bit parameter; a cmd1's in 48 bits: the payload word below, the parameter
above. Source: the project's facts, ethosu-npu.md §2.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from npubox.hw.ethosu.commands import (
    Activation,
    ClipRange,
    Cmd0,
    Cmd1,
    ElementwiseMode,
    Format,
    PoolMode,
    Rounding,
    ScaleMode,
    StrideMode,
    Upscale,
)

SHIFT_AT = 32  # the parameter's place above a cmd1's payload


@dataclass(frozen=True)
class Field:
    """Some bits of a command, lowest first, and how to read them."""

    name: str
    bits: tuple[int, ...]
    signed: bool = False
    plus: int = 0
    values: dict[int, str] | None = None
    base: int = 10  # how to show a number

    @property
    def mask(self) -> int:
        return sum(1 << bit for bit in self.bits)

    def read(self, word: int) -> int:
        value = sum((word >> bit & 1) << at for at, bit in enumerate(self.bits))
        if self.signed and value >> (len(self.bits) - 1):
            value -= 1 << len(self.bits)
        return value + self.plus

    def show(self, value: int) -> str:
        """A value by its name in the field's own terms, else as a number."""
        if self.values is not None and value in self.values:
            return self.values[value]
        return hex(value) if self.base == 16 else str(value)


def _span(low: int, width: int) -> tuple[int, ...]:
    return tuple(range(low, low + width))


def _field(name: str, low: int, width: int, values: type[IntEnum] | dict[int, str] | None = None) -> Field:
    if isinstance(values, type):
        values = {member.value: member.name for member in values}
    return Field(name, _span(low, width), values=values)


def _value(width: int = 16, *, signed: bool = False, base: int = 10) -> tuple[Field, ...]:
    return (Field("value", _span(0, width), signed=signed, base=base),)


ELEMENT_BITS = {0: "8", 1: "16", 2: "32", 3: "64"}
MASK = _value(base=16)
REGION = (_field("region", 0, 3),)
IFM_PRECISION = (
    _field("signed", 0, 1),
    _field("bits", 2, 2, ELEMENT_BITS),
    _field("format", 6, 2, Format),
    _field("scale_mode", 8, 2, ScaleMode),
    _field("rounding", 14, 2, Rounding),
)
DMA_REGION = (_field("region", 0, 3), _field("internal", 8, 1), _field("stride_mode", 9, 2, StrideMode))
TABLES = {Activation.TABLE0.value + n: f"TABLE{n}" for n in range(8)}

CMD0_FIELDS: dict[Cmd0, tuple[Field, ...]] = {
    Cmd0.OP_STOP: MASK,
    Cmd0.OP_IRQ: MASK,
    Cmd0.OP_CONV: (),
    Cmd0.OP_DEPTHWISE: (),
    Cmd0.OP_POOL: (_field("mode", 0, 3, PoolMode),),
    Cmd0.OP_ELEMENTWISE: (_field("mode", 0, 6, ElementwiseMode),),
    Cmd0.OP_RESIZE: MASK,  # U85
    Cmd0.OP_DMA_START: (),
    Cmd0.OP_DMA_WAIT: (_field("outstanding", 0, 16),),
    Cmd0.OP_KERNEL_WAIT: (_field("outstanding", 0, 16),),
    Cmd0.OP_PMU_MASK: (_field("enable", 0, 1),),
    Cmd0.IFM_PAD_TOP: _value(7),
    Cmd0.IFM_PAD_LEFT: _value(7),
    Cmd0.IFM_PAD_RIGHT: _value(8),
    Cmd0.IFM_PAD_BOTTOM: _value(8),
    Cmd0.IFM_DEPTH_M1: _value(),
    Cmd0.IFM_PRECISION: IFM_PRECISION,
    Cmd0.IFM_UPSCALE: (_field("mode", 0, 2, Upscale),),
    Cmd0.IFM_BROADCAST: MASK,  # U85
    Cmd0.IFM_ZERO_POINT: _value(signed=True),
    Cmd0.IFM_WIDTH0_M1: _value(),
    Cmd0.IFM_HEIGHT0_M1: _value(),
    Cmd0.IFM_HEIGHT1_M1: _value(),
    Cmd0.IFM_IB_END: _value(),
    Cmd0.IFM_REGION: REGION,
    Cmd0.OFM_WIDTH_M1: _value(),
    Cmd0.OFM_HEIGHT_M1: _value(),
    Cmd0.OFM_DEPTH_M1: _value(),
    Cmd0.OFM_PRECISION: (
        _field("signed", 0, 1),
        _field("bits", 1, 2, ELEMENT_BITS),
        _field("format", 6, 2, Format),
        _field("scale", 8, 1, {0: "PER_CHANNEL", 1: "GLOBAL"}),
        _field("rounding", 14, 2, Rounding),
    ),
    Cmd0.OFM_BLK_WIDTH_M1: _value(),
    Cmd0.OFM_BLK_HEIGHT_M1: _value(),
    Cmd0.OFM_BLK_DEPTH_M1: _value(),
    Cmd0.OFM_ZERO_POINT: _value(signed=True),
    Cmd0.OFM_WIDTH0_M1: _value(),
    Cmd0.OFM_HEIGHT0_M1: _value(),
    Cmd0.OFM_HEIGHT1_M1: _value(),
    Cmd0.OFM_REGION: REGION,
    Cmd0.KERNEL_WIDTH_M1: _value(),
    Cmd0.KERNEL_HEIGHT_M1: _value(),
    Cmd0.KERNEL_STRIDE: (
        Field("stride_x", (0, 6), plus=1),
        Field("stride_y", (1, 9), plus=1),
        _field("weight_order", 2, 1, {0: "DEPTH_FIRST", 1: "PART_KERNEL_FIRST"}),
        Field("dilation_x", (3,), plus=1),
        Field("dilation_y", (4,), plus=1),
        _field("decomposition", 5, 1, {0: "8x8", 1: "4x4"}),
    ),
    Cmd0.PARALLEL_MODE: (_field("mode", 0, 1, {0: "SINGLE_CORE", 1: "DUAL_CORE_DEPTH"}),),
    Cmd0.ACC_FORMAT: (_field("format", 0, 2, {0: "INT32", 1: "INT40", 2: "FP16"}),),
    Cmd0.ACTIVATION: (
        _field(
            "function", 0, 5, {0: "NONE", Activation.TANH: "TANH", Activation.SIGMOID: "SIGMOID", **TABLES}
        ),
        _field("clip_range", 12, 3, ClipRange),
    ),
    Cmd0.ACTIVATION_MIN: _value(signed=True),
    Cmd0.ACTIVATION_MAX: _value(signed=True),
    Cmd0.WEIGHT_REGION: REGION,
    Cmd0.SCALE_REGION: REGION,
    Cmd0.AB_START: _value(),
    Cmd0.WEIGHT_FORMAT: MASK,  # U85
    Cmd0.BLOCKDEP: _value(2),
    Cmd0.DMA0_SRC_REGION: DMA_REGION,
    Cmd0.DMA0_DST_REGION: DMA_REGION,
    Cmd0.DMA0_SIZE0: _value(),
    Cmd0.DMA0_SIZE1: _value(),
    Cmd0.IFM2_BROADCAST: (
        _field("height", 0, 1),
        _field("width", 1, 1),
        _field("depth", 2, 1),
        _field("operand_a", 6, 1, {0: "IFM", 1: "IFM2"}),
        _field("constant", 7, 1),
    ),
    Cmd0.IFM2_SCALAR: _value(signed=True),
    Cmd0.IFM2_PRECISION: IFM_PRECISION,
    Cmd0.IFM2_ZERO_POINT: _value(signed=True),
    Cmd0.IFM2_WIDTH0_M1: _value(),
    Cmd0.IFM2_HEIGHT0_M1: _value(),
    Cmd0.IFM2_HEIGHT1_M1: _value(),
    Cmd0.IFM2_IB_START: _value(),
    Cmd0.IFM2_REGION: REGION,
}

ADDRESS = (Field("address", _span(0, 40), base=16),)
STRIDE = (Field("stride", _span(0, 40), signed=True),)
LENGTH = (Field("length", _span(0, 32)),)
SCALE = (Field("scale", _span(0, 32)), Field("shift", _span(SHIFT_AT, 6)))

CMD1_FIELDS: dict[Cmd1, tuple[Field, ...]] = {
    **{code: ADDRESS for code in Cmd1 if "_BASE" in code.name},
    **{code: STRIDE for code in Cmd1 if "_STRIDE" in code.name},
    **{code: LENGTH for code in Cmd1 if code.name.endswith("_LENGTH")},
    Cmd1.OFM_SCALE: SCALE,
    Cmd1.OPA_SCALE: SCALE,
    Cmd1.OPB_SCALE: (Field("scale", _span(0, 16)),),
    Cmd1.DMA0_SRC: ADDRESS,
    Cmd1.DMA0_DST: ADDRESS,
    Cmd1.DMA0_LEN: (Field("length", _span(0, 40)),),
    Cmd1.DMA0_SKIP0: STRIDE,
    Cmd1.DMA0_SKIP1: STRIDE,
}
