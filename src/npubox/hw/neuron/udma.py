# SPDX-License-Identifier: Apache-2.0
"""The UDMA engines: where they are in BAR 0, their registers (facts, neuron.md §1.4, §6.2, §6.6).

An engine has 16 queue pairs: an M2S (TX) ring of sources and an S2M (RX) ring of destinations.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

ENGINES = 12
ENGINES_PER_CORE = 3
QUEUES = 16
ENGINE_SIZE = 0x3C800
MEMCPY_QUEUE = 15
"""The driver's own copies: queue 15 of a core's last engine."""

RING_MIN = 32
RING_MAX = (1 << 24) - 16
RING_MULTIPLE = 16
RING_ALIGNMENT = 256
PACKET_MAX_DESCRIPTORS = 128
PACKET_MAX_BYTES = 0xFFFFF
FIRST_RING_ID = 1


def engine_base(engine: int) -> int:
    """BAR 0 offset of a UDMA engine."""
    core, index = divmod(engine, ENGINES_PER_CORE)
    return 0x4_0000 + core * 0x10_0000 + index * 0x4_0000


def tdma_base(engine: int) -> int:
    """BAR 0 offset of the TDMA wrapper of an engine."""
    core, index = divmod(engine, ENGINES_PER_CORE)
    return core * 0x10_0000 + index * 0x1000


def memcpy_engine(core: int) -> int:
    return core * ENGINES_PER_CORE + 2


class EngineReg(IntEnum):
    """Byte offsets from the engine's base."""

    M2S_OSTAND_CFG = 0x00124
    M2S_STATE = 0x00200
    M2S_CHANGE_STATE = 0x00204
    M2S_CFG_LEN = 0x00254
    M2S_STREAM_CFG = 0x00258
    M2S_DESC_PREF_CFG_2 = 0x00304
    M2S_DESC_PREF_CFG_3 = 0x00308
    M2S_DATA_CFG = 0x00310
    M2S_APPLICATION_ACK = 0x00408
    DMA_VERSION = 0x00604
    S2M_OSTAND_CFG_RD = 0x20124
    S2M_OSTAND_CFG_WR = 0x20128
    S2M_STATE = 0x20200
    S2M_CHANGE_STATE = 0x20204
    S2M_STREAM_CFG = 0x20250
    S2M_COMP_CFG_1C = 0x20380
    S2M_APPLICATION_ACK = 0x2038C
    AXI_TIMEOUT = 0x3A300
    SPARE = 0x3B460


DMA_VERSION = 4
SPARE_COMPLETION_HOLDS = 1 << 0
"""SPARE: the S2M completion head does not advance while no completion ring is in use."""


class Primary(IntEnum):
    """Registers of a primary interrupt group, from its base: group g is at `primary_group(g)`."""

    MASK_CLEAR = 0x18
    CONTROL = 0x28


def primary_group(group: int) -> int:
    return 0x38000 + group * 0x40


class Secondary(IntEnum):
    """Registers of a secondary interrupt group, from its base: group g is at `secondary_group(g)`."""

    CAUSE = 0x00
    CAUSE_SET = 0x08
    MASK = 0x10
    MASK_CLEAR = 0x18
    STATUS = 0x20
    CONTROL = 0x28
    ABORT_MASK = 0x30


M2S_ERRORS = 0
S2M_ERRORS = 1
PARITY_ERRORS = 2


def secondary_group(group: int) -> int:
    return 0x3A000 + group * 0x40


class M2sError(IntFlag):
    """Causes in secondary group 0."""

    RING_ID = 1 << 17
    LAST_BIT = 1 << 16
    FIRST_BIT = 1 << 15
    TOO_MANY_DESCRIPTORS = 1 << 14
    PACKET_LENGTH = 1 << 13
    AXI_READ = 1 << 4
    """Bits 12..4 are AXI errors, which is which is not public: ours are bit 4 for data, bit 5 for rings."""
    AXI_DESCRIPTOR = 1 << 5


class S2mError(IntFlag):
    """Causes in secondary group 1; only RING_ID's place is public."""

    RING_ID = 1 << 11
    AXI_WRITE = 1 << 4
    AXI_DESCRIPTOR = 1 << 5


def vmpr(queue: int) -> int:
    """The address selectors of a queue: tx_sel, then rx_sel[3]."""
    return 0x3C400 + queue * 0x40


class ChangeState(IntEnum):
    NORMAL = 1
    DISABLE = 2
    ABORT = 4


class StateField(IntEnum):
    """Each of the four fields of a STATE register, at bits `STATE_FIELD_SHIFTS`."""

    IDLE = 0
    NORMAL = 1
    ABORT = 2


STATE_FIELD_SHIFTS = (0, 4, 8, 12)


def m2s_queue(queue: int) -> int:
    """Offset of an M2S queue's registers from the engine's base."""
    return 0x1000 + queue * 0x1000


def s2m_queue(queue: int) -> int:
    return 0x21000 + queue * 0x1000


class QueueReg(IntEnum):
    """Byte offsets from a queue's base, M2S and S2M alike unless named after one."""

    CFG = 0x20
    STATUS = 0x24
    RING_BASE_LO = 0x28
    RING_BASE_HI = 0x2C
    RING_LENGTH = 0x30
    HEAD = 0x34
    TAIL_INCREMENT = 0x38
    TAIL = 0x3C
    CURRENT = 0x40
    COMPLETION_BASE_LO = 0x44
    COMPLETION_BASE_HI = 0x48
    COMPLETION_HEAD = 0x4C
    S2M_COMP_CFG = 0x54
    S2M_SW_CTRL = 0x64
    M2S_RATE_LIMIT_MASK = 0x74
    M2S_COMP_CFG = 0xA0
    M2S_SW_CTRL = 0xB0


class QueueCfg(IntFlag):
    PREFETCH = 1 << 16
    SCHEDULING = 1 << 17


QUEUE_CFG_RESET = 0x0300_0000
SW_CTRL_RESET = 1 << 8
POINTER_MASK = 0xFF_FFFF
"""HEAD, TAIL, CURRENT and COMPLETION_HEAD: the index; the ring id is in the two bits from 30 up."""
RING_ID_SHIFT = 30


class CompCfg(IntFlag):
    WRITE = 1 << 0
    NO_COALESCING = 1 << 1


TDMA_SIZE = 0x1000


class TdmaReg(IntEnum):
    """Byte offsets from the TDMA wrapper's base."""

    EVENT_ACCELERATION = 0x00
    READ_REORDER = 0x1C
    WRITE_REORDER = 0x20
