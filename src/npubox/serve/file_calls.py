# SPDX-License-Identifier: Apache-2.0
"""read, write, lseek, poll, F_GETFL and readlink on a served node, as a device without events answers.

The stand-in behind a descriptor is a file, which would answer with bytes, sizes and readiness. Only
launches that ask for it pay for notifying these calls. Source: the project's facts (accel-core.md §1.5).
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Callable

from npubox.core.drm.fence import Fence, new_context
from npubox.core.pending import Pending
from npubox.serve import linux, paths
from npubox.serve.bpf import F_GETFL, POLLED_FDS, READS, WRITES
from npubox.serve.caller import CallMemory
from npubox.serve.listener import Call, Listener
from npubox.serve.path_calls import signed
from npubox.serve.supervisor import PROCEED, Handler, Result
from npubox.serve.syscalls import Arch

_POLLFD = struct.Struct("<ihh")
_TIMESPEC = struct.Struct("<qq")
NS = 10**9


class FileCalls:
    """`node_path` gives the path of the node behind a descriptor, None for one that is not ours."""

    def __init__(self, listener: Listener, arch: Arch, node_path: Callable[[int, int], str | None]) -> None:
        self._listener = listener
        self._arch = arch
        self._node_path = node_path

    def table(self) -> dict[str, Handler]:
        here = linux.AT_FDCWD
        return {
            **dict.fromkeys(READS, self._read),
            **dict.fromkeys(WRITES, self._write),
            "lseek": lambda call: 0 if self._ours(call, call.args[0]) else PROCEED,
            "fcntl": self._fcntl,
            "poll": self._poll,
            "ppoll": self._ppoll,
            "epoll_ctl": lambda call: self._epoll_ctl(call),
            "readlink": lambda call: self._readlink(call, here, *call.args[:3]),
            "readlinkat": lambda call: self._readlink(call, *call.args[:4]),
        }

    def _ours(self, call: Call, fd: int) -> bool:
        return self._node_path(call.tid, fd) is not None

    def _read(self, call: Call) -> Result:
        if not self._ours(call, call.args[0]):
            return PROCEED
        if self._flags(call) & os.O_NONBLOCK:
            raise OSError(errno.EAGAIN, "no DRM event is queued")
        return Pending([_never()])

    def _write(self, call: Call) -> Result:
        if not self._ours(call, call.args[0]):
            return PROCEED
        raise OSError(errno.EINVAL, "a node takes no bytes")

    def _fcntl(self, call: Call) -> Result:
        if call.args[1] & 0xFFFF_FFFF != F_GETFL or not self._ours(call, call.args[0]):
            return PROCEED
        return self._flags(call) & ~os.O_CLOEXEC

    def _flags(self, call: Call) -> int:
        """The status flags of the descriptor; a file shows O_LARGEFILE as a device's does."""
        with open(f"/proc/{call.tid}/fdinfo/{signed(call.args[0])}", encoding="ascii") as info:
            return next(int(line.split()[1], 8) for line in info if line.startswith("flags:"))

    def _poll(self, call: Call) -> Result:
        timeout = signed(call.args[2])
        return self._wait(call, None if timeout < 0 else timeout * 10**6)

    def _ppoll(self, call: Call) -> Result:
        if not call.args[2]:
            return self._wait(call, None)
        seconds, nanoseconds = _TIMESPEC.unpack(CallMemory(self._listener, call).read(call.args[2], 16))
        return self._wait(call, seconds * NS + nanoseconds)

    def _wait(self, call: Call, timeout: int | None) -> Result:
        """A node is never ready. With others beside it the kernel is asked, for the node too."""
        address, count = call.args[:2]
        if not count or count > POLLED_FDS:
            return PROCEED
        data = CallMemory(self._listener, call).read(address, _POLLFD.size * count)
        entries = list(_POLLFD.iter_unpack(data))
        watched = [fd for fd, _, _ in entries if fd >= 0]
        if not watched or not all(self._ours(call, fd) for fd in watched):
            return PROCEED
        CallMemory(self._listener, call).write(
            address, b"".join(_POLLFD.pack(fd, events, 0) for fd, events, _ in entries)
        )
        deadline = None if timeout is None else time.monotonic_ns() + timeout
        return 0 if timeout == 0 else Pending([_never()], deadline, timeout_errno=0)

    def _epoll_ctl(self, call: Call) -> Result:
        if not self._ours(call, call.args[2]):
            return PROCEED
        raise OSError(errno.EOPNOTSUPP, "epoll on a served node is not modelled")

    def _readlink(self, call: Call, directory: int, path: int, buffer: int, size: int) -> Result:
        memory = CallMemory(self._listener, call)
        try:
            text = os.fsdecode(memory.read_string(path))
            fd = paths.own_descriptor(paths.absolute(call.tid, signed(directory), text))
        except OSError:
            return PROCEED
        node = None if fd is None else self._node_path(call.tid, fd)
        if node is None:
            return PROCEED
        answer = os.fsencode(node)[: max(signed(size), 0)]
        memory.write(buffer, answer)
        return len(answer)


def _never() -> Fence:
    return Fence(new_context(), 1)
