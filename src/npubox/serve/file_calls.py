# SPDX-License-Identifier: Apache-2.0
"""read, write, lseek, F_GETFL and readlink on a served file, as the file itself answers.

The stand-in behind a descriptor would answer with bytes and sizes of its own. Source: the project's facts
(accel-core.md §1.5).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

from npubox.core.pending import Pending
from npubox.serve import linux, paths
from npubox.serve.bpf import F_GETFL, READS, WRITES
from npubox.serve.caller import CallMemory
from npubox.serve.listener import Call, Listener
from npubox.serve.open_files import Served
from npubox.serve.path_calls import signed
from npubox.serve.supervisor import PROCEED, Again, Handler, Result
from npubox.serve.syscalls import Arch

_IOVEC = struct.Struct("<QQ")
LARGEST = 1 << 16  # bytes of one read or write; fewer than were asked for is a valid answer
MOST_PIECES = 1024


class FileCalls:
    """`find` gives the open file behind a descriptor of a thread, None for one that is not ours."""

    def __init__(self, listener: Listener, arch: Arch, find: Callable[[int, int], Served | None]) -> None:
        self._listener = listener
        self._arch = arch
        self._find = find

    def table(self) -> dict[str, Handler]:
        here = linux.AT_FDCWD
        return {
            **{name: self._reader(vector="v" in name) for name in READS},
            **{name: self._writer(vector="v" in name) for name in WRITES},
            "lseek": self._lseek,
            "fcntl": self._fcntl,
            "readlink": lambda call: self._readlink(call, here, *call.args[:3]),
            "readlinkat": lambda call: self._readlink(call, *call.args[:4]),
        }

    def _reader(self, *, vector: bool) -> Handler:
        def read(call: Call) -> Result:
            served = self._find(call.tid, call.args[0])
            if served is None:
                return PROCEED
            memory = CallMemory(self._listener, call)
            pieces = self._pieces(memory, call, vector)
            nonblocking = bool(status_flags(call.tid, call.args[0]) & os.O_NONBLOCK)
            data = served.file.read(sum(size for _, size in pieces), nonblocking)
            if isinstance(data, Pending):
                return Again(data)
            done = 0
            for address, size in pieces:
                memory.write(address, data[done : done + size])
                done += len(data[done : done + size])
            return done

        return read

    def _writer(self, *, vector: bool) -> Handler:
        def write(call: Call) -> Result:
            served = self._find(call.tid, call.args[0])
            if served is None:
                return PROCEED
            memory = CallMemory(self._listener, call)
            pieces = self._pieces(memory, call, vector)
            return served.file.write(b"".join(memory.read(address, size) for address, size in pieces))

        return write

    def _pieces(self, memory: CallMemory, call: Call, vector: bool) -> list[tuple[int, int]]:
        """(address, size) of a read's or write's buffers, no more than LARGEST bytes together."""
        address, count = call.args[1:3]
        if not vector:
            return [(address, min(count, LARGEST))]
        data = memory.read(address, _IOVEC.size * min(count, MOST_PIECES))
        left, pieces = LARGEST, []
        for base, size in _IOVEC.iter_unpack(data):
            pieces.append((base, min(size, left)))
            left -= pieces[-1][1]
        return pieces

    def _lseek(self, call: Call) -> Result:
        served = self._find(call.tid, call.args[0])
        if served is None:
            return PROCEED
        offset, whence = call.args[1:3]
        return served.file.lseek(offset - (1 << 64) if offset >> 63 else offset, signed(whence))

    def _fcntl(self, call: Call) -> Result:
        if call.args[1] & 0xFFFF_FFFF != F_GETFL:
            return PROCEED
        served = self._find(call.tid, call.args[0])
        if served is None:
            return PROCEED
        flags = status_flags(call.tid, call.args[0]) & ~os.O_CLOEXEC
        return flags if served.node is not None else flags & ~self._arch.o_largefile

    def _readlink(self, call: Call, directory: int, path: int, buffer: int, size: int) -> Result:
        memory = CallMemory(self._listener, call)
        try:
            text = os.fsdecode(memory.read_string(path))
            fd = paths.own_descriptor(paths.absolute(call.tid, signed(directory), text))
        except OSError:
            return PROCEED
        served = None if fd is None else self._find(call.tid, fd)
        if served is None:
            return PROCEED
        answer = os.fsencode(served.path)[: max(signed(size), 0)]
        memory.write(buffer, answer)
        return len(answer)


def status_flags(tid: int, fd: int) -> int:
    """The status flags of a thread's descriptor, and O_CLOEXEC; a stand-in that is a file has O_LARGEFILE."""
    with open(f"/proc/{tid}/fdinfo/{signed(fd)}", encoding="ascii") as info:
        return next(int(line.split()[1], 8) for line in info if line.startswith("flags:"))


def fdinfo(tid: int, fd: int, served: Served, o_largefile: int) -> str:
    """The text of /proc/TID/fdinfo/FD for a served file: the kernel's own lines, then the file's."""
    with open(f"/proc/{tid}/fdinfo/{fd}", encoding="ascii") as info:
        lines = [line for line in info if line.startswith(("pos:", "flags:", "mnt_id:", "ino:"))]
    if served.node is None:
        flags = int(lines[1].split()[1], 8) & ~o_largefile
        lines[1] = f"flags:\t0{flags:o}\n"
    return "".join(lines) + served.file.fdinfo()
