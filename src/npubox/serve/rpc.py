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
    """Server: length of a file that comes along, processes and nodes as JSON."""
    OPEN = auto()
    """Launch: node, flags, process, whether it has CAP_SYS_ADMIN. Answer: as FILE."""
    IOCTL = auto()
    """Launch: file, request, address, process, ticket. Answer: result, or WAITS."""
    MMAP = auto()
    """Launch: file, length, protection, flags, offset, process. Answer: offset in the descriptor that comes
    along, whether it may be written."""
    POLL = auto()
    """Launch: file. Answer: events."""
    CHANGES = auto()
    """Launch: file, ticket. Answer: whether OVER will tell when its events change."""
    READ_FILE = auto()
    """Launch: file, size, whether it must not sleep, ticket. Answer: bytes, or WAITS: read again then."""
    WRITE_FILE = auto()
    """Launch: file, with bytes. Answer: how many."""
    LSEEK = auto()
    """Launch: file, offset, whence. Answer: position."""
    FDINFO = auto()
    """Launch: file. Answer: text."""
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
    INSTALL = auto()
    """Server: as FILE, then the flags. Answer: the caller's descriptor."""
    LOOKUP = auto()
    """Server: a descriptor of the caller's. Answer: file, 0 for one that is not the server's."""
    DUPLICATE = auto()
    """Server: a descriptor of the caller's. Answer: a copy that comes along."""
    REPLY = auto()
    """Launch: errno or 0, a number, bytes."""
    HAPPENED = auto()
    """Server, unasked: the completion behind a file."""
    OVER = auto()
    """Server, unasked: the wait of this ticket is over."""
    JOB = auto()
    """Server, unasked: client id, number, errno, with the report as JSON."""


class Packet(NamedTuple):
    """`fd` is a descriptor that came along, the receiver's to close."""

    kind: int
    error: int
    numbers: tuple[int, ...]
    data: bytes
    fd: int | None = None


class Held(IntEnum):
    """What stands in for a file: FILE is file, client id, one of these, a size, with its link as bytes and
    with the descriptor where there is one."""

    NODE = auto()
    PAGES = auto()
    TOKEN = auto()
    SIGNAL = auto()


def pack(kind: Kind, *numbers: int, error: int = 0, data: bytes = b"") -> bytes:
    """Numbers are 64 bits, signed or not."""
    fields = [_signed(number) for number in numbers] + [0] * (6 - len(numbers))
    return _HEAD.pack(kind, error, *fields) + data


def send(channel: socket.socket, packet: bytes, fd: int | None = None) -> None:
    """OSError where the other end is gone."""
    rights = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fd.to_bytes(4, "little"))]
    channel.sendmsg([packet], rights)


def receive(channel: socket.socket) -> Packet | None:
    """The next packet, None when the other end is gone."""
    try:
        data, fds, _, _ = socket.recv_fds(channel, LARGEST + _HEAD.size, 1, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None
    if len(data) < _HEAD.size:
        return None
    kind, error, *numbers = _HEAD.unpack_from(data)
    return Packet(kind, error, tuple(numbers), data[_HEAD.size :], fds[0] if fds else None)


def _signed(number: int) -> int:
    number &= MASK
    return number - (1 << 64) if number >> 63 else number


def unsigned(number: int) -> int:
    return number & MASK
