# SPDX-License-Identifier: Apache-2.0
"""FWIO messages: register reads and metric posts through the firmware (facts, neuron.md §8.2, §8.3, §16)."""

from __future__ import annotations

import struct
from enum import IntEnum

REQUEST_HEADER = struct.Struct("<BBHI")
"""Sequence, command, size with this header, CRC-32C of the whole request with this field zero."""
RESPONSE_HEADER = struct.Struct("<BBH")
"""Sequence, error, size with this header. The device writes the sequence byte last."""
BUFFER_SIZE = 0xFFFF
MAX_ADDRESSES = (BUFFER_SIZE - REQUEST_HEADER.size) // 8


class Command(IntEnum):
    READ = 1
    """Data: n u64 device addresses; answered by n u32 values."""
    POST_METRICS = 2
    """Data: at most 128 bytes of metrics; answered by nothing."""


class Error(IntEnum):
    OK = 0
    FAIL = 1
    """The driver tries again."""
    UNKNOWN_COMMAND = 2
    """The driver does not."""


def _table() -> tuple[int, ...]:
    entries = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        entries.append(value)
    return tuple(entries)


_CRC_TABLE = _table()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), reflected, initial value and final exclusive-or all ones."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def pack_request(sequence: int, command: int, data: bytes) -> bytes:
    """A request with its CRC; `data` of at most 65527 bytes."""
    size = REQUEST_HEADER.size + len(data)
    crc = crc32c(REQUEST_HEADER.pack(sequence, command, size, 0) + data)
    return REQUEST_HEADER.pack(sequence, command, size, crc) + data


def pack_read(sequence: int, *addresses: int) -> bytes:
    return pack_request(sequence, Command.READ, struct.pack(f"<{len(addresses)}Q", *addresses))


def pack_response(sequence: int, error: int, data: bytes = b"") -> bytes:
    return RESPONSE_HEADER.pack(sequence, error, RESPONSE_HEADER.size + len(data)) + data
