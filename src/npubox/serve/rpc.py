# SPDX-License-Identifier: Apache-2.0
"""What a launch and a machine server say to each other (`npubox.serve.forward`, `.server`).

One connection is one launch. Each request has one answer; while the server works on one it may ask back
for the caller's memory and rights. Unasked it says only that a blocked call is over, or a job. Both ends
are of one version of npubox: nothing here is an ABI.
"""

from __future__ import annotations

import socket
import struct
from enum import IntEnum, auto
from typing import NamedTuple

_HEAD = struct.Struct("<B3xi6q")
LARGEST = 1 << 16
MASK = (1 << 64) - 1


class Kind(IntEnum):
    """What a packet is; its numbers in the order they are sent."""

    HELLO = auto()
    """Server: processes and nodes as JSON, with the stores' descriptors."""
    OPEN = auto()
    """Launch: node, flags, process, whether it has CAP_SYS_ADMIN. Answer: file, client id."""
    IOCTL = auto()
    """Launch: file, request, address, process, ticket. Answer: result, or WAITS."""
    MMAP = auto()
    """Launch: file, length, protection, flags, offset."""
    FORGOTTEN = auto()
    """Launch: file. Answer: bytes, pairs of offset and size."""
    UNMAPPED = auto()
    """Launch: file, offset."""
    CLOSE = auto()
    """Launch: file."""
    FINISH = auto()
    """Launch: ticket, errno of a wait that was given up. Answer: result."""
    ANSWER = auto()
    """Server: errno or 0, two numbers, bytes."""
    WAITS = auto()
    """Server, instead of ANSWER: the deadline or -1, the errno of a time-out."""
    READ = auto()
    """Server: address, size. Answer: bytes."""
    WRITE = auto()
    """Server: address, with bytes."""
    RIGHTS = auto()
    """Server: does the caller have CAP_SYS_ADMIN?"""
    REPLY = auto()
    """Launch: errno or 0, a number, bytes."""
    OVER = auto()
    """Server, unasked: the wait of this ticket is over."""
    JOB = auto()
    """Server, unasked: client id, number, errno, with the report as JSON."""


class Packet(NamedTuple):
    kind: int
    error: int
    numbers: tuple[int, ...]
    data: bytes


def pack(kind: Kind, *numbers: int, error: int = 0, data: bytes = b"") -> bytes:
    """Numbers are 64 bits, signed or not."""
    fields = [_signed(number) for number in numbers] + [0] * (6 - len(numbers))
    return _HEAD.pack(kind, error, *fields) + data


def receive(channel: socket.socket) -> Packet | None:
    """The next packet, None when the other end is gone."""
    try:
        data = channel.recv(LARGEST + _HEAD.size)
    except ConnectionError:
        return None
    if len(data) < _HEAD.size:
        return None
    kind, error, *numbers = _HEAD.unpack_from(data)
    return Packet(kind, error, tuple(numbers), data[_HEAD.size :])


def _signed(number: int) -> int:
    number &= MASK
    return number - (1 << 64) if number >> 63 else number


def unsigned(number: int) -> int:
    return number & MASK
