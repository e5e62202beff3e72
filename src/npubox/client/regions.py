# SPDX-License-Identifier: Apache-2.0
"""Which of its eight regions a U55/U65 command stream uses.

SUBMIT wants a buffer for each region the stream uses and refuses one for any other, so the client has
to know. The rules are the kernel's (ethosu-accel.md §4.3): an operation counts the regions of the
operands it reads and writes, as the *_REGION registers stand when it starts. Mainline's driver refuses
a stream that leaves one of them unset; an NPU may do without (pools of the legacy generator).
"""

from __future__ import annotations

import struct

from npubox.hw.ethosu.commands import (
    CMD1_CONTROL,
    IFM2_CONSTANT,
    INTERNAL_REGION_BIT,
    UNARY_MODES,
    Cmd0,
)

_REGION_BITS = 7
_GLOBAL_SCALE = 1 << 8  # OFM_PRECISION: no table of scales
_WEIGHTS_FROM_IFM2 = 1 << 0  # parameter of OP_CONV and OP_DEPTHWISE
_POOL_WITHOUT_IFM = 4
_WORD_LOW = 0xFFFF


def used_regions(words: bytes) -> frozenset[int]:
    """The regions used by the command stream `words` (little-endian 32-bit words)."""
    registers: dict[int, int] = {}
    used: set[int] = set()
    stream = iter(struct.unpack(f"<{len(words) // 4}I", words[: len(words) // 4 * 4]))
    for word in stream:
        if word & CMD1_CONTROL:
            next(stream, None)
            continue
        code, parameter = word & _WORD_LOW, word >> 16
        if code >= Cmd0.IFM_PAD_TOP:
            registers[code] = parameter
        elif code == Cmd0.OP_DMA_START:
            sides = (registers.get(side) for side in (Cmd0.DMA0_SRC_REGION, Cmd0.DMA0_DST_REGION))
            used.update(r & _REGION_BITS for r in sides if r is not None and not r & INTERNAL_REGION_BIT)
        else:
            operands = (registers.get(operand) for operand in _operands(code, parameter, registers))
            used.update(region & _REGION_BITS for region in operands if region is not None)
    return frozenset(used)


def _operands(code: int, parameter: int, registers: dict[int, int]) -> list[Cmd0]:
    """The region registers that operation `code` looks at; none for waits, interrupts and STOP."""
    tables = [] if registers.get(Cmd0.OFM_PRECISION, 0) & _GLOBAL_SCALE else [Cmd0.SCALE_REGION]
    if code in (Cmd0.OP_CONV, Cmd0.OP_DEPTHWISE):
        weights = Cmd0.IFM2_REGION if parameter & _WEIGHTS_FROM_IFM2 else Cmd0.WEIGHT_REGION
        return [Cmd0.IFM_REGION, weights, Cmd0.OFM_REGION, *tables]
    if code == Cmd0.OP_POOL:
        inputs = [] if parameter == _POOL_WITHOUT_IFM else [Cmd0.IFM_REGION]
        return [*inputs, Cmd0.OFM_REGION, *tables]
    if code == Cmd0.OP_ELEMENTWISE:
        scalar = registers.get(Cmd0.IFM2_BROADCAST, 0) & IFM2_CONSTANT
        second = [] if scalar or parameter in UNARY_MODES else [Cmd0.IFM2_REGION]
        return [Cmd0.IFM_REGION, *second, Cmd0.OFM_REGION]
    return []
