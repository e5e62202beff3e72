# SPDX-License-Identifier: Apache-2.0
"""The Inferentia's own address map: what descriptors and FWIO messages name (facts, neuron.md §1.3)."""

from __future__ import annotations

from enum import IntEnum

DRAM_CHANNELS = 2
DRAM_CHANNEL_SIZE = 4 << 30
DRAM_CHANNEL_STRIDE = 0x10_0000_0000
DRAM_REGIONS = 4
"""Regions of 1 GiB, which only the driver's allocator knows."""

CORES = 4
CORE_WINDOWS = 0x0FFF_C000_0000
CORE_WINDOW_SIZE = 0x0400_0000
APB = 0x0FFF_F000_0000
MISC_RAM = 0x0FFF_F078_E000

PORT_1 = 1 << 44
"""In a local address: the same target through the second AXI port."""


class Window(IntEnum):
    """Bits 47:46 of a device address: whose address the lower 46 bits are."""

    LOCAL = 0
    HOST = 1
    EAST = 2
    WEST = 3


WINDOW_SHIFT = 46
WINDOW_MASK = (1 << WINDOW_SHIFT) - 1


def through(window: Window, address: int) -> int:
    """The device address that reaches `address`, of the host's bus or of a neighbour, through `window`."""
    return window << WINDOW_SHIFT | address & WINDOW_MASK


def window_of(address: int) -> Window:
    return Window(address >> WINDOW_SHIFT & 3)


def dram_address(channel: int, offset: int = 0) -> int:
    """The device address of byte `offset` of a DRAM channel."""
    return channel * DRAM_CHANNEL_STRIDE + offset


def dram_bar_offset(address: int) -> int | None:
    """Where a DRAM address lies in BAR 4; None for any other address."""
    channel, offset = divmod(address, DRAM_CHANNEL_STRIDE)
    if channel < DRAM_CHANNELS and offset < DRAM_CHANNEL_SIZE:
        return channel * DRAM_CHANNEL_SIZE + offset
    return None
