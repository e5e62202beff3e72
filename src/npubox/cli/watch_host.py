# SPDX-License-Identifier: Apache-2.0
"""Tracing the host's own nodes: the kernel answers, the calls are decoded as those of virtual machines are.

The kernel's drivers were never seen from here, so the trace says that it is unverified.
"""

from __future__ import annotations

import glob
import os
import select
import stat
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from npubox.core.usermem import ProcessMemory
from npubox.serve import paths
from npubox.serve.bpf import MAP_ANONYMOUS
from npubox.serve.follow import follow
from npubox.serve.front import end_as
from npubox.serve.linux import AT_FDCWD
from npubox.serve.path_calls import signed
from npubox.serve.syscalls import native
from npubox.tools.ioctls import decode
from npubox.tools.trace import Event, Tracer

NODES = ("/dev/accel/accel*", "/dev/dri/*", "/dev/ethosu*", "/dev/neuron*")
UNVERIFIED = "calls are carried out by the host's kernel; decoding them was never verified on real hardware"
_POLLFD = struct.Struct("<ihh")
MOST_POLLED = 64
POLL_EVENTS = ("POLLIN", "POLLPRI", "POLLOUT", "POLLERR", "POLLHUP", "POLLNVAL")


def trace_host(command: Sequence[str], nodes: Sequence[str], output: Path | None, as_json: bool) -> int:
    """Run a program and trace its calls on nodes at `nodes` and NODES; its exit code. Does not return where a
    signal kills it. DeviceError where it cannot be traced."""
    file = os.fdopen(os.dup(2), "w") if output is None else output.open("w", encoding="utf-8")
    with file:
        tracer = Tracer(file, as_json)
        tracer.note(UNVERIFIED)
        patterns = (*NODES, *map(os.path.realpath, nodes))
        if not any(glob.glob(pattern) for pattern in patterns):
            tracer.note(f"this host has no {' or '.join(patterns)}")
        sys.stdout.flush()
        status = follow(command, HostWatcher(tracer, patterns))
    return end_as(status)


@dataclass
class _Call:
    """A call that is being carried out. `ended` completes the event, with its result."""

    event: Event
    ended: Callable[[int], None] = lambda result: None


class HostWatcher:
    """A `Watch`. A node's open files are known by the text of their /proc links."""

    def __init__(self, tracer: Tracer, patterns: Sequence[str]) -> None:
        self._tracer = tracer
        self._patterns = patterns
        self._links: dict[str, str] = {}
        arch = native()
        begin = {
            "ioctl": self._ioctl,
            "open": lambda tid, args: self._open(tid, AT_FDCWD, args[0], args[1]),
            "openat": lambda tid, args: self._open(tid, args[0], args[1], args[2]),
            "openat2": self._openat2,
            "mmap": self._mmap,
            "poll": self._poll,
            "ppoll": self._poll,
            "close": self._close,
        }
        self._begin = {arch.number(name): handler for name, handler in begin.items()}

    def entered(self, tid: int, number: int, args: tuple[int, ...]) -> _Call | None:
        handler = self._begin.get(number)
        try:
            return None if handler is None else handler(tid, args)
        except OSError:  # a path or a set that cannot be read: the kernel finds the words for it
            return None

    def left(self, what: _Call, result: int) -> None:
        error = -result if -4096 < result < 0 else 0
        if not error:
            what.ended(result)
        elif what.event.call == "ioctl":
            what.ended(result)  # DRM copies its argument out when it fails too
        self._tracer.finish(what.event, None if error else result, error)

    def _ioctl(self, tid: int, args: tuple[int, ...]) -> _Call | None:
        fd, request, address = args[:3]
        node = self._node_of(tid, fd)
        if node is None:
            return None
        read = ProcessMemory(tid).read
        event = self._tracer.ioctl(tid, signed(fd), node, request, address, read)

        def ended(result: int) -> None:
            event.after = decode(request, address, read, ending=True)

        return _Call(event, ended)

    def _openat2(self, tid: int, args: tuple[int, ...]) -> _Call | None:
        flags = int.from_bytes(ProcessMemory(tid).read(args[2], 8), "little")
        return self._open(tid, args[0], args[1], flags)

    def _open(self, tid: int, directory: int, pointer: int, flags: int) -> _Call | None:
        path = paths.absolute(tid, signed(directory), os.fsdecode(ProcessMemory(tid).read_string(pointer)))
        node = self._node_at(path)
        if node is None:
            return None

        def ended(fd: int) -> None:
            self._links[os.readlink(f"/proc/{tid}/fd/{fd}")] = node

        return _Call(self._tracer.open(tid, path, flags), ended)

    def _mmap(self, tid: int, args: tuple[int, ...]) -> _Call | None:
        _, length, prot, flags, fd, offset = args
        node = None if flags & MAP_ANONYMOUS else self._node_of(tid, fd)
        if node is None:
            return None
        event = self._tracer.mmap(tid, signed(fd), node, length, prot, flags, offset)

        def ended(address: int) -> None:
            event.after = {"address": f"{address:#x}"}

        return _Call(event, ended)

    def _poll(self, tid: int, args: tuple[int, ...]) -> _Call | None:
        address, count = args[:2]
        memory = ProcessMemory(tid)
        size = _POLLFD.size * min(count, MOST_POLLED)
        nodes = [self._node_of(tid, fd) for fd, _, _ in _POLLFD.iter_unpack(memory.read(address, size))]
        ours = [node for node in nodes if node is not None]
        if not ours:
            return None
        event = self._tracer.poll(tid, ours)

        def ended(result: int) -> None:
            found = [events for _, _, events in _POLLFD.iter_unpack(memory.read(address, size))]
            event.after = {
                node: "|".join(name for name in POLL_EVENTS if events & getattr(select, name)) or "0"
                for node, events in zip(nodes, found, strict=True)
                if node is not None
            }

        return _Call(event, ended)

    def _close(self, tid: int, args: tuple[int, ...]) -> _Call | None:
        node = self._node_of(tid, args[0])
        return None if node is None else _Call(self._tracer.close(tid, signed(args[0]), node))

    def _node_of(self, tid: int, fd: int) -> str | None:
        try:
            link = os.readlink(f"/proc/{tid}/fd/{signed(fd)}")
        except OSError:
            return None
        return self._links.get(link) or self._node_at(link)

    def _node_at(self, path: str) -> str | None:
        """The node at a path, links followed; None where there is none that is traced."""
        real = os.path.realpath(path)
        if not any(fnmatchcase(real, pattern) for pattern in self._patterns):
            return None
        try:
            return real if stat.S_ISCHR(os.stat(real).st_mode) else None
        except OSError:
            return None
