# SPDX-License-Identifier: Apache-2.0
"""The messages between a driver's process and its device's process (`npubox.bus.remote`, `.host`).

One message is one packet of a local SEQPACKET socket: a kind and four numbers, and bytes where the kind
has some. Both ends are of one version of npubox: nothing here is an ABI.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from enum import IntEnum
from typing import NamedTuple

_HEAD = struct.Struct("<B7xQQQQ")
LARGEST = 1 << 16


class Kind(IntEnum):
    """What a message says; the numbers in the order they are sent."""

    CLOCK = 0
    """Driver: the descriptor of the page where the device writes its time."""
    WRITE = 1
    """Driver: offset, value."""
    READ = 2
    """Driver: ticket, offset."""
    MAP = 3
    """Driver: address, offset, size, protection, with the file's descriptor."""
    UNMAP = 4
    """Driver: address, size."""
    ARM = 5
    """Driver: timer, deadline."""
    CANCEL = 6
    """Driver: timer."""
    SLEEP = 7
    """Driver: ticket, duration."""
    ORDER = 8
    """Driver: bytes for the machine's control channel."""
    REPLY = 9
    """Device: ticket, value."""
    INTERRUPT = 10
    """Device: index."""
    FIRED = 11
    """Device: timer."""
    REPORT = 12
    """Device: bytes from the machine's control channel."""
    SYNC_DEVICE = 13
    """Driver: ticket, address, size."""
    SYNC_CPU = 14
    """Driver: ticket, address, size."""


class Message(NamedTuple):
    kind: int
    numbers: tuple[int, int, int, int]
    data: bytes
    fd: int | None


def pack(kind: Kind, *numbers: int, data: bytes = b"") -> bytes:
    return _HEAD.pack(kind, *numbers, *(0,) * (4 - len(numbers))) + data


def send(channel: socket.socket, packet: bytes, fd: int | None = None, flags: int = 0) -> None:
    """OSError as sendmsg(2) fails; BlockingIOError with MSG_DONTWAIT where there is no room."""
    rights = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
    channel.sendmsg([packet], rights, flags | socket.MSG_NOSIGNAL)


def receive(channel: socket.socket) -> Message | None:
    """The next message, None when the other end is gone."""
    try:
        packet, fds, _, _ = socket.recv_fds(channel, LARGEST, 1, socket.MSG_CMSG_CLOEXEC)
    except OSError:
        return None
    if len(packet) < _HEAD.size:
        for fd in fds:
            os.close(fd)
        return None
    kind, *numbers = _HEAD.unpack_from(packet)
    a, b, c, d = numbers
    return Message(kind, (a, b, c, d), packet[_HEAD.size :], fds[0] if fds else None)
