# SPDX-License-Identifier: Apache-2.0
"""PMU events as the Cortex-M's NPU driver numbers them, and with it the messages and Arm's UAPI.

The numbers count the names of the driver's enumeration (U55 and U65, as of 2021 and 2022; later ones have
AXI1 behind the latencies). They are not the event codes of PMEVTYPER, which `EVENT_CODES` gives by them.
Source: the NPU driver's public pmu_ethosu.h and the register interface headers.
"""

from __future__ import annotations

NO_EVENT = 0

_BLOCKS: tuple[range, ...] = (
    range(0x01),  # NO_EVENT
    range(0x11, 0x12),  # CYCLE
    range(0x20, 0x24),  # NPU_IDLE, CC_STALLED_ON_BLOCKDEP, CC_STALLED_ON_SHRAM_RECONFIG, NPU_ACTIVE
    range(0x30, 0x3B),  # MAC_ACTIVE and what it stalls on
    range(0x40, 0x49),  # AO_ACTIVE and what it stalls on
    range(0x50, 0x5C),  # WD_ACTIVE and what it stalls on
    range(0x80, 0x8A),  # AXI0: transactions, beats, stalls
    range(0x8C, 0x8D),  # AXI0_ENABLED_CYCLES
    range(0x8E, 0x90),  # AXI0_RD_STALL_LIMIT, AXI0_WR_STALL_LIMIT
    range(0x180, 0x18A),  # AXI1, likewise
    range(0x18C, 0x18D),
    range(0x18E, 0x190),
    range(0xA0, 0xA7),  # AXI_LATENCY
    range(0xB0, 0xB2),  # ECC_DMA, ECC_SB0
    range(0x1B1, 0x1B2),  # ECC_SB1
)

EVENT_CODES: tuple[int, ...] = tuple(code for block in _BLOCKS for code in block)
"""PMEVTYPER's code of each event number."""
