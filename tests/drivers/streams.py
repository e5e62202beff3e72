# SPDX-License-Identifier: Apache-2.0
"""Command streams by hand."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from npubox.formats.network import Network
from npubox.hw.ethosu.commands import Cmd0, Cmd1

Command = tuple[Cmd0, int] | tuple[Cmd1, int]
STOP = 0xFFFF_0000


def words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *(value & 0xFFFF_FFFF for value in values))


def stream(commands: Iterable[Command], *, stop: bool = True) -> bytes:
    """Commands as (code, parameter) or (code, 40-bit value), with OP_STOP at the end."""
    out: list[int] = []
    for code, value in commands:
        if isinstance(code, Cmd1):
            out += [code | 0x4000 | (value >> 32 & 0xFF) << 16, value]
        else:
            out.append(code | (value & 0xFFFF) << 16)
    return words(*out, STOP) if stop else words(*out)


def copy(source: int, destination: int, length: int, *, src: int = 0, dst: int = 0) -> list[Command]:
    """A DMA of `length` bytes between regions, from `src` to `dst`."""
    return [
        (Cmd0.DMA0_SRC_REGION, source),
        (Cmd0.DMA0_DST_REGION, destination),
        (Cmd1.DMA0_SRC, src),
        (Cmd1.DMA0_DST, dst),
        (Cmd1.DMA0_LEN, length),
        (Cmd0.OP_DMA_START, 0),
    ]


def feature_map(prefix: str, region: int, base: int, stride_y: int, stride_x: int) -> list[Command]:
    """An NHWC int8 map in one tile."""
    return [
        (Cmd0[f"{prefix}_REGION"], region),
        (Cmd0[f"{prefix}_PRECISION"], 0),
        (Cmd1[f"{prefix}_BASE0"], base),
        (Cmd1[f"{prefix}_STRIDE_Y"], stride_y),
        (Cmd1[f"{prefix}_STRIDE_X"], stride_x),
        (Cmd1[f"{prefix}_STRIDE_C"], 1),
    ]


CONV: list[Command] = [
    *feature_map("IFM", 1, 0, 80, 8),
    (Cmd0.IFM_DEPTH_M1, 7),
    (Cmd0.IFM_PAD_TOP, 1),
    (Cmd0.IFM_PAD_LEFT, 1),
    (Cmd0.IFM_PAD_BOTTOM, 1),
    (Cmd0.IFM_PAD_RIGHT, 1),
    (Cmd0.KERNEL_HEIGHT_M1, 2),
    (Cmd0.KERNEL_WIDTH_M1, 2),
    (Cmd0.KERNEL_STRIDE, 0),
    *feature_map("OFM", 1, 0x1000, 160, 16),
    (Cmd0.OFM_HEIGHT_M1, 9),
    (Cmd0.OFM_WIDTH_M1, 9),
    (Cmd0.OFM_DEPTH_M1, 15),
    (Cmd0.WEIGHT_REGION, 0),
    (Cmd1.WEIGHT_BASE, 0x200),
    (Cmd1.WEIGHT_LENGTH, 0x130),
    (Cmd0.SCALE_REGION, 0),
    (Cmd1.SCALE_BASE, 0x100),
    (Cmd1.SCALE_LENGTH, 0xA0),
    (Cmd0.OP_CONV, 0),
]
"""10 x 10 x 8 to 10 x 10 x 16, 3 x 3, padding 1: the IFM's last byte is 799, the OFM's 0x1000 + 1599."""


def vela_streams(network: Network) -> Iterator[tuple[bytes, dict[int, int]]]:
    """Each NPU operator's stream with the bytes that its regions have."""
    for operator in network.operators:
        if operator.npu is not None:
            npu = operator.npu
            tensors = {0: npu.read_only, 1: npu.scratch, 2: npu.scratch_fast}
            sizes = dict.fromkeys(range(8), 0)
            sizes.update({region: network.tensors[index].nbytes for region, index in tensors.items()})
            yield npu.stream.words, sizes
