# SPDX-License-Identifier: Apache-2.0
"""Whole messages over the stream socket, with their descriptors (facts, vfio-user.md §1)."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence
from typing import NamedTuple

from npubox.bus.vfio_user.protocol import HEADER, MAX_FDS, MAX_MESSAGE, REPLY_TYPE, TYPE_MASK, Flag

_HEADER_SIZE = HEADER.size
_ANCILLARY = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)


class ProtocolError(Exception):
    """The other end does not speak vfio-user: the connection is of no more use."""


class Message(NamedTuple):
    """A command or a reply. Whoever receives it closes `fds` that it does not keep."""

    number: int
    command: int
    flags: int
    errno: int
    payload: bytes
    fds: list[int]

    @property
    def is_reply(self) -> bool:
        return self.flags & TYPE_MASK == REPLY_TYPE

    def close_fds(self) -> None:
        while self.fds:
            os.close(self.fds.pop())


def send(
    connection: socket.socket,
    number: int,
    command: int,
    flags: int,
    payload: bytes = b"",
    fds: Sequence[int] = (),
    errno: int = 0,
) -> None:
    """OSError as sendmsg(2) fails."""
    data = HEADER.pack(number, command, _HEADER_SIZE + len(payload), flags, errno) + payload
    if fds:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        data = data[connection.sendmsg([data], rights, socket.MSG_NOSIGNAL) :]
    if data:
        connection.sendall(data, socket.MSG_NOSIGNAL)


def receive(connection: socket.socket) -> Message | None:
    """The next message; None when the other end has closed.

    Raises ProtocolError for a message of an impossible size or cut off, OSError. The header is read by
    itself: descriptors then stay with their message.
    """
    header, rights, _, _ = connection.recvmsg(_HEADER_SIZE, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
    fds = _descriptors(rights) if rights else []
    try:
        if not header:
            return None
        if len(header) < _HEADER_SIZE:
            header += _exactly(connection, _HEADER_SIZE - len(header))
        number, command, size, flags, errno = HEADER.unpack(header)
        if not _HEADER_SIZE <= size <= MAX_MESSAGE:
            raise ProtocolError(f"a message of {size} bytes")
        payload = _exactly(connection, size - _HEADER_SIZE) if size > _HEADER_SIZE else b""
        message = Message(number, command, flags, errno, payload, fds)
        fds = []
        return message
    finally:
        for fd in fds:
            os.close(fd)


def error_flags() -> int:
    return REPLY_TYPE | Flag.ERROR


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = connection.recv(size, socket.MSG_WAITALL)
    if len(data) < size:
        raise ProtocolError("the connection closed in the middle of a message")
    return data


def _descriptors(rights: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in rights:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)
