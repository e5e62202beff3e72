# SPDX-License-Identifier: Apache-2.0
"""Registers of the Ethos-U55 and U65 NPU: offsets and bit fields.

Source: Arm's public register interface headers as restated in the project's facts (ethosu-npu.md §9,
ethosu-accel.md §6.1).
"""

from __future__ import annotations

from enum import IntEnum, IntFlag


class Reg(IntEnum):
    """Byte offsets of 32-bit registers."""

    ID = 0x00
    STATUS = 0x04
    CMD = 0x08
    RESET = 0x0C
    QBASE = 0x10
    QBASE_HI = 0x14
    QREAD = 0x18
    QCONFIG = 0x1C
    QSIZE = 0x20
    PROT = 0x24
    CONFIG = 0x28
    LOCK = 0x2C
    REGIONCFG = 0x3C
    AXI_LIMIT0 = 0x40
    AXI_LIMIT1 = 0x44
    AXI_LIMIT2 = 0x48
    AXI_LIMIT3 = 0x4C
    BASEP0 = 0x80
    PMCR = 0x180
    PMCNTENSET = 0x184
    PMCNTENCLR = 0x188
    PMOVSSET = 0x18C
    PMOVSCLR = 0x190
    PMINTSET = 0x194
    PMINTCLR = 0x198
    PMCCNTR = 0x1A0
    PMCCNTR_HI = 0x1A4
    PMCCNTR_CFG = 0x1A8
    PMCAXI_CHAN = 0x1AC
    PMEVCNTR0 = 0x300
    PMEVTYPER0 = 0x380


REGISTER_WINDOW = 0x1000
BASEP_COUNT = 8
EVENT_COUNTERS = 4


class Status(IntFlag):
    RUNNING = 1 << 0
    IRQ_RAISED = 1 << 1
    BUS_ERROR = 1 << 2
    RESET_IN_PROGRESS = 1 << 3
    PARSE_ERROR = 1 << 4
    END_REACHED = 1 << 5
    PMU_IRQ = 1 << 6
    WD_FAULT = 1 << 7
    ECC_FAULT = 1 << 8


STATUS_IRQ_HISTORY_SHIFT = 16


class Cmd(IntFlag):
    RUN = 1 << 0
    CLEAR_IRQ = 1 << 1
    CLOCK_Q_ENABLE = 1 << 2
    POWER_Q_ENABLE = 1 << 3
    STOP_REQUEST = 1 << 4


class Pmcr(IntFlag):
    CNT_EN = 1 << 0
    EVENT_CNT_RST = 1 << 1
    CYCLE_CNT_RST = 1 << 2
    MASK_EN = 1 << 3


PMCR_NUM_EVENT_CNT_SHIFT = 11
PMU_CYCLE_BIT = 1 << 31


class Event(IntEnum):
    """PMU event numbers that drivers and Vela's users look at."""

    NO_EVENT = 0x00
    CYCLE = 0x11
    NPU_IDLE = 0x20
    NPU_ACTIVE = 0x23
    MAC_ACTIVE = 0x30
    AO_ACTIVE = 0x40
    WD_ACTIVE = 0x50
    AXI0_RD_DATA_BEAT_RECEIVED = 0x82
    AXI0_WR_DATA_BEAT_WRITTEN = 0x87
    AXI1_RD_DATA_BEAT_RECEIVED = 0x182
    AXI1_WR_DATA_BEAT_WRITTEN = 0x187


class Product(IntEnum):
    """CONFIG bits 31:28."""

    U55 = 0
    U65 = 1
    U85 = 2
