# SPDX-License-Identifier: Apache-2.0
"""Command words of the Ethos-U55 and U65 command stream.

A word is 32 bits little endian: bits 9:0 the code, 13:10 zero, 15:14 the number of payload words
(0 = cmd0, 1 = cmd1), 31:16 the parameter. Addresses in cmd1 are 40 bits: the payload word below,
the parameter's low byte above. Source: the project's facts (ethosu-npu.md §2, ethosu-accel.md §4.1).
"""

from __future__ import annotations

from enum import IntEnum

CODE_MASK = 0x3FF
RESERVED_MASK = 0x3C00
CONTROL_MASK = 0xC000
CMD1_CONTROL = 0x4000


class Cmd0(IntEnum):
    """One word: code and 16-bit parameter. Below 256 operations, from 256 on register writes."""

    OP_STOP = 0
    OP_IRQ = 1
    OP_CONV = 2
    OP_DEPTHWISE = 3
    OP_POOL = 5
    OP_ELEMENTWISE = 6
    OP_RESIZE = 7
    OP_DMA_START = 16
    OP_DMA_WAIT = 17
    OP_KERNEL_WAIT = 18
    OP_PMU_MASK = 19
    IFM_PAD_TOP = 256
    IFM_PAD_LEFT = 257
    IFM_PAD_RIGHT = 258
    IFM_PAD_BOTTOM = 259
    IFM_DEPTH_M1 = 260
    IFM_PRECISION = 261
    IFM_UPSCALE = 263
    IFM_BROADCAST = 264  # U85
    IFM_ZERO_POINT = 265
    IFM_WIDTH0_M1 = 266
    IFM_HEIGHT0_M1 = 267
    IFM_HEIGHT1_M1 = 268
    IFM_IB_END = 269
    IFM_REGION = 271
    OFM_WIDTH_M1 = 273
    OFM_HEIGHT_M1 = 274
    OFM_DEPTH_M1 = 275
    OFM_PRECISION = 276
    OFM_BLK_WIDTH_M1 = 277
    OFM_BLK_HEIGHT_M1 = 278
    OFM_BLK_DEPTH_M1 = 279
    OFM_ZERO_POINT = 280
    OFM_WIDTH0_M1 = 282
    OFM_HEIGHT0_M1 = 283
    OFM_HEIGHT1_M1 = 284
    OFM_REGION = 287
    KERNEL_WIDTH_M1 = 288
    KERNEL_HEIGHT_M1 = 289
    KERNEL_STRIDE = 290
    PARALLEL_MODE = 291
    ACC_FORMAT = 292
    ACTIVATION = 293
    ACTIVATION_MIN = 294
    ACTIVATION_MAX = 295
    WEIGHT_REGION = 296
    SCALE_REGION = 297
    AB_START = 301
    WEIGHT_FORMAT = 302  # U85
    BLOCKDEP = 303
    DMA0_SRC_REGION = 304
    DMA0_DST_REGION = 305
    DMA0_SIZE0 = 306
    DMA0_SIZE1 = 307
    IFM2_BROADCAST = 384
    IFM2_SCALAR = 385
    IFM2_PRECISION = 389
    IFM2_ZERO_POINT = 393
    IFM2_WIDTH0_M1 = 394
    IFM2_HEIGHT0_M1 = 395
    IFM2_HEIGHT1_M1 = 396
    IFM2_IB_START = 397
    IFM2_REGION = 399


class Cmd1(IntEnum):
    """Two words: code and parameter, then a 32-bit payload. All are register writes on U55 and U65."""

    IFM_BASE0 = 0
    IFM_BASE1 = 1
    IFM_BASE2 = 2
    IFM_BASE3 = 3
    IFM_STRIDE_X = 4
    IFM_STRIDE_Y = 5
    IFM_STRIDE_C = 6
    OFM_BASE0 = 16
    OFM_BASE1 = 17
    OFM_BASE2 = 18
    OFM_BASE3 = 19
    OFM_STRIDE_X = 20
    OFM_STRIDE_Y = 21
    OFM_STRIDE_C = 22
    WEIGHT_BASE = 32
    WEIGHT_LENGTH = 33
    SCALE_BASE = 34
    SCALE_LENGTH = 35
    OFM_SCALE = 36
    OPA_SCALE = 37
    OPB_SCALE = 38
    DMA0_SRC = 48
    DMA0_DST = 49
    DMA0_LEN = 50
    DMA0_SKIP0 = 51
    DMA0_SKIP1 = 52
    DMA0_DST_STRIDE0 = 53  # U85
    DMA0_DST_STRIDE1 = 54  # U85
    IFM2_BASE0 = 128
    IFM2_BASE1 = 129
    IFM2_BASE2 = 130
    IFM2_BASE3 = 131
    IFM2_STRIDE_X = 132
    IFM2_STRIDE_Y = 133
    IFM2_STRIDE_C = 134
    WEIGHT1_BASE = 144
    WEIGHT1_LENGTH = 145
    SCALE1_BASE = 146
    SCALE1_LENGTH = 147


# The numbers of Cmd0 and Cmd1 members in these sets do not collide, so one set serves both.
U85_ONLY: frozenset[Cmd0 | Cmd1] = frozenset(
    {Cmd0.OP_RESIZE, Cmd0.IFM_BROADCAST, Cmd0.WEIGHT_FORMAT, Cmd1.DMA0_DST_STRIDE0, Cmd1.DMA0_DST_STRIDE1}
)
NOT_ON_U55: frozenset[Cmd0 | Cmd1] = frozenset({Cmd0.PARALLEL_MODE, Cmd1.SCALE1_BASE, Cmd1.SCALE1_LENGTH})


class PoolMode(IntEnum):
    """Parameter of OP_POOL, bits 2:0."""

    MAX = 0
    AVERAGE = 1
    REDUCE_SUM = 2


class ElementwiseMode(IntEnum):
    """Parameter of OP_ELEMENTWISE, bits 5:0."""

    MUL = 0
    ADD = 1
    SUB = 2
    MIN = 3
    MAX = 4
    LRELU = 5
    ABS = 6
    CLZ = 7
    SHR = 8
    SHL = 9


UNARY_MODES = frozenset({ElementwiseMode.LRELU, ElementwiseMode.ABS, ElementwiseMode.CLZ})


class Format(IntEnum):
    """Feature-map layout, PRECISION bits 7:6."""

    NHWC = 0
    NHCWB16 = 1


class Upscale(IntEnum):
    NONE = 0
    NEAREST = 1
    ZEROS = 2


class ScaleMode(IntEnum):
    """How the operands of ADD and SUB are scaled, IFM_PRECISION bits 9:8."""

    OPA_OPB_16 = 0
    OPA_32 = 1
    OPB_32 = 2


class Rounding(IntEnum):
    """OFM_PRECISION bits 15:14."""

    DOUBLE = 0
    TRUNCATE = 1
    NATURAL = 2


class ClipRange(IntEnum):
    """ACTIVATION bits 14:12."""

    OFM = 0
    UINT8 = 2
    INT8 = 3
    INT16 = 5


class Activation(IntEnum):
    """ACTIVATION bits 4:0; tables are 16 + n."""

    NONE = 0
    TANH = 3
    SIGMOID = 4
    TABLE0 = 16


class StrideMode(IntEnum):
    """DMA0_*_REGION bits 10:9."""

    D1 = 0
    D2 = 1
    D3 = 2


SRAM_REGION = 2
INTERNAL_REGION_BIT = 1 << 8
IFM2_BROADCAST_H = 1 << 0
IFM2_BROADCAST_W = 1 << 1
IFM2_BROADCAST_C = 1 << 2
IFM2_OPERAND_A = 1 << 6
IFM2_CONSTANT = 1 << 7
