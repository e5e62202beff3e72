# SPDX-License-Identifier: Apache-2.0
"""PCI identity and BARs of the Inferentia (facts, neuron.md §1.1, §1.2)."""

from __future__ import annotations

from enum import IntEnum

VENDOR_ID = 0x1D0F
DEVICE_IDS = (0x7064, 0x7065, 0x7066, 0x7067)
CLASS_CODE = 0x120000
"""Processing accelerator: our choice, the driver does not look."""


class Revision(IntEnum):
    """The revision ID, which says what the driver believes it runs on; any other value is silicon."""

    SILICON = 0x00
    EMULATOR = 0xF0
    QEMU = 0xFF


class Bar(IntEnum):
    APB = 0
    """Control registers."""
    AXI = 2
    """The four NeuronCore windows."""
    DRAM = 4
    """Device memory, both channels one after the other."""


BAR_SIZE = {Bar.APB: 8 << 20, Bar.AXI: 256 << 20, Bar.DRAM: 8 << 30}
"""In bytes: the smallest powers of two that hold what the driver touches."""
