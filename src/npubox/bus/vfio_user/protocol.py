# SPDX-License-Identifier: Apache-2.0
"""The messages of vfio-user 0.0: numbers, flags and layouts (facts, vfio-user.md §1, §2)."""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

HEADER = struct.Struct("<HHIII")
"""Message id, command, size of the whole message, flags, errno."""
VERSION = struct.Struct("<HH")
"""Major, minor; a NUL-terminated JSON text may follow."""
DMA_MAP = struct.Struct("<IIQQQ")
"""argsz, flags, offset into the file, address, size; with the file's descriptor, or none."""
DMA_UNMAP = struct.Struct("<IIQQ")
"""argsz, flags, address, size."""
DEVICE_INFO = struct.Struct("<IIII")
"""argsz, flags, number of regions, number of interrupt kinds."""
REGION_INFO = struct.Struct("<IIIIQQ")
"""argsz, flags, index, offset of the first capability, size, offset of the region in the file."""
CAPABILITY = struct.Struct("<HHI")
"""id, version, offset of the next."""
SPARSE_HEAD = struct.Struct("<II")
"""Number of areas, reserved."""
SPARSE_AREA = struct.Struct("<QQ")
"""Offset in the region, size."""
IRQ_INFO = struct.Struct("<IIII")
"""argsz, flags, index, count."""
SET_IRQS = struct.Struct("<IIIII")
"""argsz, flags, index, start, count."""
REGION_ACCESS = struct.Struct("<QII")
"""Offset, region, count; data follows where there is any."""

REGISTER_READ = struct.Struct(HEADER.format + REGION_ACCESS.format.removeprefix("<"))
"""A whole REGION_READ."""
REGISTER_VALUE = struct.Struct(REGISTER_READ.format + "I")
"""The whole reply to one of a 32-bit word."""
REGISTER_REPLY = struct.Struct("<H2xII20xI")
"""The same, what its receiver looks at: message id, size, flags, value."""

MAJOR, MINOR = 0, 0
MAX_DATA = 1 << 20
MAX_MESSAGE = HEADER.size + REGION_ACCESS.size + MAX_DATA
MAX_FDS = 16
REPLY_TYPE = 1
TYPE_MASK = 0xF


class Command(IntEnum):
    VERSION = 1
    DMA_MAP = 2
    DMA_UNMAP = 3
    DEVICE_GET_INFO = 4
    DEVICE_GET_REGION_INFO = 5
    DEVICE_GET_REGION_IO_FDS = 6
    DEVICE_GET_IRQ_INFO = 7
    DEVICE_SET_IRQS = 8
    REGION_READ = 9
    REGION_WRITE = 10
    DMA_READ = 11
    DMA_WRITE = 12
    DEVICE_RESET = 13
    REGION_WRITE_MULTI = 15
    DEVICE_FEATURE = 16
    MIG_DATA_READ = 17
    MIG_DATA_WRITE = 18


class Flag(IntFlag):
    """Beside the type in a header's flags."""

    NO_REPLY = 1 << 4
    ERROR = 1 << 5


class DmaFlag(IntFlag):
    READABLE = 1 << 0
    WRITABLE = 1 << 1


class DeviceFlag(IntFlag):
    RESET = 1 << 0
    PCI = 1 << 1


class RegionFlag(IntFlag):
    READ = 1 << 0
    WRITE = 1 << 1
    MMAP = 1 << 2
    CAPABILITIES = 1 << 3


SPARSE_MMAP = 1
"""Capability id."""


class Region(IntEnum):
    """PCI regions beyond the BARs, which are 0 to 5."""

    ROM = 6
    CONFIG = 7
    VGA = 8


BARS = 6
REGIONS = 9


class Irq(IntEnum):
    """PCI interrupt kinds."""

    INTX = 0
    MSI = 1
    MSIX = 2
    ERR = 3
    REQ = 4


IRQS = 5


class IrqInfoFlag(IntFlag):
    EVENTFD = 1 << 0
    NO_RESIZE = 1 << 3


class IrqFlag(IntFlag):
    """Of SET_IRQS: one kind of data and one action."""

    DATA_NONE = 1 << 0
    DATA_BOOL = 1 << 1
    DATA_EVENTFD = 1 << 2
    MASK = 1 << 3
    UNMASK = 1 << 4
    TRIGGER = 1 << 5
