# SPDX-License-Identifier: Apache-2.0
"""MISC RAM: the words in BAR 0 through which driver and firmware talk (facts, neuron.md §8.1, §10.1)."""

from __future__ import annotations

from enum import IntEnum, IntFlag

BASE = 0x78_E000
"""BAR 0 offset."""
SIZE = 0x1000


class MiscReg(IntEnum):
    """Byte offsets from `BASE`."""

    API_VERSION = 0x000
    STATUS = 0x01C
    DEVICE_ID = 0x024
    POWER = 0x054
    """Bits 15:0 utilisation in basis points (0..10000), 31:16 number of the sample."""
    METRICS = 0x100
    """128 bytes."""
    TPB_RESET_MAP = 0x1D8
    RESET = 0x1EC
    """What the driver asks for; the firmware clears it when it has taken effect."""
    REQUEST_HI = 0x1F0
    REQUEST_LO = 0x1F4
    RESPONSE_HI = 0x1F8
    RESPONSE_LO = 0x1FC
    DOORBELL = 0x800
    """Written 1: for FWIO requests and for resets."""


METRICS_SIZE = 128
POWER_API_VERSION = 3
"""From this API version on the firmware has power samples."""


class Status(IntFlag):
    EAST_LINK = 1 << 0
    WEST_LINK = 1 << 1
    READY = 1 << 31


class Reset(IntEnum):
    NONE = 0
    DEVICE = 1
    TPB = 2
