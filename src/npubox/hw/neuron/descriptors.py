# SPDX-License-Identifier: Apache-2.0
"""UDMA descriptors: 16 bytes, little-endian (facts, neuron.md §6.3, §16)."""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

SIZE = 16
MAX_LENGTH = 0x1_0000
FORMAT = struct.Struct("<IIQ")
"""TX: length and control, meta control, source address. RX: length and control, 0, destination."""

LENGTH_MASK = 0xFFFF
"""A length of 0 means 65536."""
RING_ID_SHIFT = 24
RING_ID_MASK = 3


class Control(IntFlag):
    """Bits of the first word, beside length and ring id. FIRST, LAST are of TX descriptors."""

    DUMMY = 1 << 22
    META_DATA = 1 << 23
    FIRST = 1 << 26
    LAST = 1 << 27
    INTERRUPT = 1 << 28
    NO_SNOOP = 1 << 29
    DMB = 1 << 30
    """Wait for all earlier transfers before this one."""
    CONCAT = 1 << 31
    """TX; in an RX descriptor: it has a second buffer."""


class Meta(IntEnum):
    """Meta control words whose meaning is known: anything else is a transform that is not public."""

    COPY = 0x0108_0003
    COPY_WRITE_BARRIER = 0x0508_0003


def length_of(control: int) -> int:
    return control & LENGTH_MASK or MAX_LENGTH


def ring_id_of(control: int) -> int:
    return control >> RING_ID_SHIFT & RING_ID_MASK


def pack_tx(
    address: int, length: int, ring_id: int, flags: int = Control.FIRST | Control.LAST, meta: int = Meta.COPY
) -> bytes:
    """A source of `length` bytes, 1..65536."""
    return FORMAT.pack(length & LENGTH_MASK | ring_id << RING_ID_SHIFT | flags, meta, address)


def pack_rx(address: int, length: int, ring_id: int, flags: int = 0) -> bytes:
    """A destination of `length` bytes, 1..65536."""
    return FORMAT.pack(length & LENGTH_MASK | ring_id << RING_ID_SHIFT | flags, 0, address)


COMPLETION_FORMAT = struct.Struct("<IIII")


class Completion(IntFlag):
    """Bits of a completion entry's first word, beside length and ring id; 16 bytes an entry."""

    FIRST = 1 << 26
    LAST = 1 << 27
    ERROR = 1 << 31
