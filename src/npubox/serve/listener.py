# SPDX-License-Identifier: Apache-2.0
"""The listener of a seccomp filter: the calls it carries and how they are answered.

Structs and numbers: the project's facts (device-nodes.md §3). Every answer may meet a caller that was
killed meanwhile; that is no error here but a False.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import NamedTuple

NOTIF_RECV = 0xC050_2100
NOTIF_SEND = 0xC018_2101
NOTIF_ID_VALID = 0x4008_2102
NOTIF_ADDFD = 0x4018_2103
NOTIF_SET_FLAGS = 0x4008_2104
SYNC_WAKE_UP = 1
RESPONSE_CONTINUE = 1
ADDFD_SETFD, ADDFD_SEND = 1, 2

_CALL = struct.Struct("<QI4xiI8x6Q")
_RESPONSE = struct.Struct("<QqiI")
_ADDFD = struct.Struct("<QIIII")
_ID = struct.Struct("<Q")
_EMPTY = bytes(_CALL.size)


class Call(NamedTuple):
    """A system call that waits for its answer. `tid` is a thread's id, `args` its six arguments."""

    id: int
    tid: int
    number: int
    arch: int
    args: tuple[int, int, int, int, int, int]


class Listener:
    """Wraps the descriptor that installing a filter gave; closes it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        try:
            fcntl.ioctl(fd, NOTIF_SET_FLAGS, SYNC_WAKE_UP)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTTY):  # before Linux 6.6
                raise

    def receive(self) -> Call | None:
        """The next call; None if its caller died before it could be received. Blocks if there is none."""
        try:
            received: bytes = fcntl.ioctl(self.fd, NOTIF_RECV, _EMPTY)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return None
            raise
        fields = _CALL.unpack(received)
        return Call(fields[0], fields[1], fields[2], fields[3], fields[4:])

    def alive(self, id_: int) -> bool:
        """Whether the caller still waits, so that its thread id still is its own."""
        return self._tell(NOTIF_ID_VALID, _ID.pack(id_))

    def answer(self, id_: int, value: int) -> bool:
        """Return `value` to the caller."""
        return self._tell(NOTIF_SEND, _RESPONSE.pack(id_, value, 0, 0))

    def fail(self, id_: int, error: int) -> bool:
        """Return -1 with errno `error` to the caller."""
        return self._tell(NOTIF_SEND, _RESPONSE.pack(id_, 0, -error, 0))

    def proceed(self, id_: int) -> bool:
        """Let the kernel carry the call out."""
        return self._tell(NOTIF_SEND, _RESPONSE.pack(id_, 0, 0, RESPONSE_CONTINUE))

    def add_fd(
        self, id_: int, fd: int, cloexec: bool, *, answer: bool, number: int | None = None
    ) -> int | None:
        """Give the caller a descriptor of its own for our `fd`, at `number` even if that is open, else at the
        lowest free one. With `answer` the call returns it, else the call goes on. Its number, None if the
        caller is gone; OSError where it can have none (EMFILE; EBADF for a `number` beyond its limit)."""
        flags = (ADDFD_SEND if answer else 0) | (ADDFD_SETFD if number is not None else 0)
        # With a bytearray, ioctl gives what the call returned instead of the buffer.
        argument = bytearray(_ADDFD.pack(id_, flags, fd, number or 0, os.O_CLOEXEC if cloexec else 0))
        try:
            added: int = fcntl.ioctl(self.fd, NOTIF_ADDFD, argument, True)
            return added
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINPROGRESS):
                return None
            raise

    def close(self) -> None:
        os.close(self.fd)

    def _tell(self, request: int, argument: bytes) -> bool:
        try:
            fcntl.ioctl(self.fd, request, argument)
        except OSError as error:
            if error.errno == errno.EINTR:
                return self._tell(request, argument)
            if error.errno in (errno.ENOENT, errno.EINPROGRESS):
                return False
            raise
        return True
