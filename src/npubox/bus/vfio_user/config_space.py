# SPDX-License-Identifier: Apache-2.0
"""A PCI function's configuration space: a type 0 header (PCI Local Bus Specification 3.0, §6.1)."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from npubox.bus.port import BarInfo, PciIdentity

SIZE = 256
VENDOR = 0x00
COMMAND = 0x04
REVISION = 0x08
"""With the class code in the upper three bytes."""
CACHE_LINE_SIZE = 0x0C
BAR0 = 0x10
SUBSYSTEM = 0x2C
INTERRUPT_LINE = 0x3C

COMMAND_WRITABLE = 0x0547
"""I/O, memory, bus master, parity, SERR, INTx disable."""
MEMORY_64 = 0x4
PREFETCHABLE = 0x8


class ConfigSpace:
    """Bytes and which of their bits can be written. All BARs are 64-bit memory BARs."""

    def __init__(self, identity: PciIdentity, bars: Mapping[int, BarInfo]) -> None:
        self._bytes = bytearray(SIZE)
        self._writable = bytearray(SIZE)
        struct.pack_into("<HH", self._bytes, VENDOR, identity.vendor, identity.device)
        struct.pack_into("<I", self._bytes, REVISION, identity.class_code << 8 | identity.revision)
        struct.pack_into("<HH", self._bytes, SUBSYSTEM, identity.vendor, identity.device)
        struct.pack_into("<H", self._writable, COMMAND, COMMAND_WRITABLE)
        self._writable[CACHE_LINE_SIZE] = self._writable[INTERRUPT_LINE] = 0xFF
        for number, bar in bars.items():
            kind = MEMORY_64 | (PREFETCHABLE if bar.prefetchable else 0)
            struct.pack_into("<Q", self._bytes, BAR0 + 4 * number, kind)
            struct.pack_into("<Q", self._writable, BAR0 + 4 * number, (1 << 64) - bar.size)

    def read(self, offset: int, count: int) -> bytes:
        return bytes(self._bytes[offset : offset + count])

    def write(self, offset: int, data: bytes) -> None:
        """Bits that cannot be written keep their value: so a BAR of ones reads back as its size."""
        for at, value in enumerate(data, offset):
            mask = self._writable[at]
            self._bytes[at] = self._bytes[at] & ~mask & 0xFF | value & mask


def identity_of(config: bytes, address: str) -> PciIdentity:
    """The identity of a function at `address`, from the first bytes of its configuration space."""
    vendor, device = struct.unpack_from("<HH", config, VENDOR)
    (word,) = struct.unpack_from("<I", config, REVISION)
    return PciIdentity(address, vendor, device, word & 0xFF, word >> 8)
