# SPDX-License-Identifier: Apache-2.0
"""Regions by hand-made streams, one an operation; the driver's own reckoning is compared end to end."""

from __future__ import annotations

import struct

import pytest

from npubox.client.regions import used_regions
from npubox.hw.ethosu.commands import CMD1_CONTROL, IFM2_CONSTANT, Cmd0, Cmd1, ElementwiseMode

REGISTERS = {
    Cmd0.IFM_REGION: 1,
    Cmd0.IFM2_REGION: 2,
    Cmd0.OFM_REGION: 3,
    Cmd0.WEIGHT_REGION: 4,
    Cmd0.SCALE_REGION: 5,
    Cmd0.DMA0_SRC_REGION: 6,
    Cmd0.DMA0_DST_REGION: 7,
}


def words(operation: Cmd0, parameter: int = 0, changes: dict[Cmd0, int | None] | None = None) -> bytes:
    registers = {code: value for code, value in {**REGISTERS, **(changes or {})}.items() if value is not None}
    stream = [code | value << 16 for code, value in registers.items()]
    stream += [Cmd1.IFM_BASE0 | CMD1_CONTROL, Cmd0.OP_POOL]  # a payload is no command
    stream += [operation | parameter << 16, Cmd0.OP_STOP | 0xFFFF << 16]
    return struct.pack(f"<{len(stream)}I", *stream)


@pytest.mark.parametrize(
    ("stream", "used"),
    [
        (words(Cmd0.OP_CONV), {1, 3, 4, 5}),
        (words(Cmd0.OP_CONV, 1), {1, 2, 3, 5}),
        (words(Cmd0.OP_DEPTHWISE, 0, {Cmd0.OFM_PRECISION: 1 << 8}), {1, 3, 4}),
        (words(Cmd0.OP_POOL, 1), {1, 3, 5}),
        (words(Cmd0.OP_POOL, 1, {Cmd0.OFM_PRECISION: 1 << 8}), {1, 3}),
        (words(Cmd0.OP_POOL, 1, {Cmd0.SCALE_REGION: None}), {1, 3}),
        (words(Cmd0.OP_ELEMENTWISE, ElementwiseMode.ADD), {1, 2, 3}),
        (words(Cmd0.OP_ELEMENTWISE, ElementwiseMode.ABS), {1, 3}),
        (words(Cmd0.OP_ELEMENTWISE, 0, {Cmd0.IFM2_BROADCAST: IFM2_CONSTANT}), {1, 3}),
        (words(Cmd0.OP_DMA_START), {6, 7}),
        (words(Cmd0.OP_DMA_START, 0, {Cmd0.DMA0_DST_REGION: 1 << 8 | 3}), {6}),
        (words(Cmd0.OP_KERNEL_WAIT), set()),
    ],
)
def test_used_regions(stream: bytes, used: set[int]) -> None:
    assert used_regions(stream) == used
