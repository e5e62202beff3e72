# SPDX-License-Identifier: Apache-2.0
"""Whole messages over the stream socket, with their descriptors (facts, vfio-user.md §1)."""

from __future__ import annotations

import array
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from npubox.bus.vfio_user.protocol import HEADER, MAX_FDS, MAX_MESSAGE, REPLY_TYPE, TYPE_MASK

_HEADER_SIZE = HEADER.size
_ANCILLARY = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)
_READ = 256
"""Most messages are tens of bytes; a longer one takes several reads."""
_FLAGS = int(socket.MSG_NOSIGNAL)
_CLOEXEC = int(socket.MSG_CMSG_CLOEXEC)


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


class Channel:
    """One end of a connection. One thread receives at a time, and one sends."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""
        self._taken = 0
        """How many bytes of the stream are behind us: those of whole messages."""
        self._arrived: deque[tuple[int, list[int]]] = deque()
        """Descriptors, and where in the stream the read that brought them ended.

        The kernel ends a read with the piece that carries descriptors, and a message's are in its first
        piece: so they belong to the message that this place is in.
        """

    def send(
        self,
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
            sent = self._connection.sendmsg([data], rights, _FLAGS)
        else:
            sent = self._connection.send(data, _FLAGS)
        if sent < len(data):
            self._connection.sendall(data[sent:], _FLAGS)

    # What follows is for register accesses, which are many: whole messages without the detours of others

    def exchange(self, request: bytes) -> bytes:
        """Send a message of a few bytes; what the next read brings, without descriptors. `push_back` what is
        not a whole message. OSError."""
        connection = self._connection
        connection.send(request, _FLAGS)
        return b"" if self._buffer else connection.recv(_READ)

    def read(self) -> bytes:
        """What one read brings, nothing if `receive` has begun a message; empty at the end, too. OSError."""
        if self._buffer:
            return b""
        data, rights, _, _ = self._connection.recvmsg(_READ, _ANCILLARY, _CLOEXEC)
        if rights:
            self._arrived.append((self._taken + len(data), _descriptors(rights)))
        return data

    def push_back(self, data: bytes) -> None:
        """`receive` shall see what `read` or `exchange` took."""
        self._buffer += data

    def finish(self, size: int, reply: bytes = b"") -> None:
        """A whole message of `size` bytes was taken, descriptors that came with it are closed. `reply` is
        sent, if there is one. OSError."""
        self._taken += size
        if self._arrived:
            self._close_arrived()
        if reply:
            self._connection.send(reply, _FLAGS)

    def receive(self) -> Message | None:
        """The next message; None when the other end has closed.

        Raises ProtocolError for a message of an impossible size or cut off, OSError.
        """
        buffer = self._buffer
        size = _HEADER_SIZE
        while True:
            if len(buffer) >= size:
                number, command, size, flags, errno = HEADER.unpack_from(buffer)
                if len(buffer) >= size >= _HEADER_SIZE:
                    break
                if not _HEADER_SIZE <= size <= MAX_MESSAGE:
                    raise ProtocolError(f"a message of {size} bytes")
            data = self._read(len(buffer))
            if not data:
                if buffer:
                    raise ProtocolError("the connection closed in the middle of a message")
                return None
            buffer = buffer + data if buffer else data
            self._buffer = buffer
        self._buffer = buffer[size:]
        self._taken += size
        fds: list[int] = []
        while self._arrived and self._arrived[0][0] <= self._taken:
            fds += self._arrived.popleft()[1]
        return Message(number, command, flags, errno, buffer[_HEADER_SIZE:size], fds)

    def close(self) -> None:
        """The connection too, and descriptors of messages that were never taken."""
        self._connection.close()
        self._close_arrived()

    def _close_arrived(self) -> None:
        while self._arrived:
            for fd in self._arrived.popleft()[1]:
                os.close(fd)

    def _read(self, buffered: int) -> bytes:
        data, rights, _, _ = self._connection.recvmsg(_READ, _ANCILLARY, _CLOEXEC)
        if rights:
            self._arrived.append((self._taken + buffered + len(data), _descriptors(rights)))
        return data


def _descriptors(rights: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in rights:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)
