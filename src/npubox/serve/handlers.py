# SPDX-License-Identifier: Apache-2.0
"""What each system call on a served node means.

A descriptor is one of ours if the text of its /proc link is a name we gave to an open file, however
it came to the program (dup, fork, exec, SCM_RIGHTS). Everything else proceeds to the kernel.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass

from npubox.core.drm.file import Caller
from npubox.serve import paths
from npubox.serve.bpf import AT_EMPTY_PATH, MAP_ANONYMOUS
from npubox.serve.caller import CallMemory, Tasks, has_sys_admin
from npubox.serve.listener import Call, Listener
from npubox.serve.machine import OpenFile, ServedMachine
from npubox.serve.mapped import mapped_ranges
from npubox.serve.nodes import NodeInfo
from npubox.serve.stats import Identity, pack_stat, pack_statx
from npubox.serve.supervisor import ANSWERED, PROCEED, Handler, Result, Supervisor
from npubox.serve.syscalls import Arch
from npubox.serve.workspace import OpenNames

SWEEP_OBJECTS = 32
SWEEP_BYTES = 64 << 20


@dataclass(frozen=True)
class Served:
    """An open file that programs hold."""

    node: NodeInfo
    file: OpenFile
    identity: Identity


class NodeHandlers:
    """The nodes of one machine, to the programs of one launch."""

    def __init__(
        self,
        listener: Listener,
        supervisor: Supervisor,
        machine: ServedMachine,
        arch: Arch,
        resolver: paths.Namespaced,
    ) -> None:
        self._listener = listener
        self._supervisor = supervisor
        self._machine = machine
        self._arch = arch
        self._paths = resolver
        self._tasks = Tasks()
        self._names: dict[NodeInfo, OpenNames] = {}
        self._served: dict[str, Served] = {}
        self._early: list[Call] = []

    @property
    def open_files(self) -> int:
        return len(self._served)

    def table(self) -> dict[int, Handler]:
        named: dict[str, Handler] = {
            "ioctl": self._ioctl,
            "openat": lambda call: self._open(call, call.args[0], call.args[1], call.args[2]),
            "open": lambda call: self._open(call, paths.linux.AT_FDCWD, call.args[0], call.args[1]),
            "openat2": self._openat2,
            "mmap": self._mmap,
            "fstat": lambda call: self._fstat(call, call.args[0], call.args[1]),
            "newfstatat": lambda call: self._stat_at(call, call.args[3], call.args[2], extended=False),
            "statx": lambda call: self._stat_at(call, call.args[2], call.args[4], extended=True),
            "ftruncate": lambda call: self._refuse(call, errno.EINVAL),
            "fallocate": lambda call: self._refuse(call, errno.ENODEV),
        }
        numbers = ((self._arch.number(name), handler) for name, handler in named.items())
        return {number: handler for number, handler in numbers if number is not None}

    def event_descriptors(self) -> list[int]:
        return [names.events for names in self._names.values()]

    def note_closed(self) -> None:
        for names in self._names.values():
            for name in names.closed():
                served = self._served.pop(name, None)
                if served is not None:
                    served.file.close()

    def close(self) -> None:
        """Nobody is left: release everything."""
        self.note_closed()
        for served in self._served.values():
            served.file.close()
        self._served.clear()
        for names in self._names.values():
            names.close()
        self._tasks.close()

    # open

    def _openat2(self, call: Call) -> Result:
        memory = CallMemory(self._listener, call)
        flags = int.from_bytes(memory.read(call.args[2], 8), "little")
        return self._open(call, call.args[0], call.args[1], flags)

    def _open(self, call: Call, directory: int, pointer: int, flags: int) -> Result:
        if flags & os.O_PATH:
            return PROCEED
        try:
            path = os.fsdecode(CallMemory(self._listener, call).read_string(pointer))
        except OSError:
            return PROCEED  # the kernel finds the words for it
        fd = paths.own_descriptor(path)
        if fd is not None:
            known = self._find(call.tid, fd)
            return PROCEED if known is None else self._open_node(call, known.node, known.identity, flags)
        try:
            path = paths.absolute(call.tid, _signed(directory), path)
            node = self._paths.find(call.tid, path)
            if node is None:
                return PROCEED
            identity = Identity.of(self._paths.stat(call.tid, path))
        except OSError:
            return PROCEED
        return self._open_node(call, node, identity, flags)

    def _open_node(self, call: Call, node: NodeInfo, identity: Identity, flags: int) -> Result:
        if flags & os.O_CREAT and flags & os.O_EXCL:
            raise OSError(errno.EEXIST, f"{node.path} exists")
        if flags & os.O_DIRECTORY:
            raise OSError(errno.ENOTDIR, f"{node.path} is no directory")
        if not self._machine.ready:
            self._early.append(call)
            if len(self._early) == 1:
                self._machine.power_up(lambda: self._supervisor.post(self._powered_up))
            return ANSWERED
        file = self._machine.open(node, flags, self._caller(call))
        try:
            name, fd = self._names_of(node).open(flags)
        except BaseException:
            file.close()
            raise
        # From here on the close event of our own or the program's descriptor releases the file.
        self._served[name] = Served(node, file, identity)
        try:
            self._listener.answer_with_fd(call.id, fd, bool(flags & os.O_CLOEXEC))
        finally:
            os.close(fd)
        return ANSWERED

    def _powered_up(self) -> None:
        early, self._early = self._early, []
        for call in early:
            self._supervisor.retry(call)

    def _names_of(self, node: NodeInfo) -> OpenNames:
        names = self._names.get(node)
        if names is None:
            names = self._names[node] = OpenNames(*self._machine.store(node))
            self._supervisor.watch(names.events)
        return names

    # calls on descriptors

    def _find(self, tid: int, fd: int) -> Served | None:
        link = self._tasks.link(tid, _signed(fd))
        return None if link is None else self._served.get(link)

    def _caller(self, call: Call) -> Caller:
        tid = call.tid
        return Caller(
            self._tasks.get(tid).tgid, lambda: has_sys_admin(tid), CallMemory(self._listener, call)
        )

    def _ioctl(self, call: Call) -> Result:
        served = self._find(call.tid, call.args[0])
        if served is None:
            return PROCEED
        return served.file.ioctl(call.args[1], call.args[2], self._caller(call))

    def _mmap(self, call: Call) -> Result:
        _, length, prot, flags, fd, offset = call.args
        if flags & MAP_ANONYMOUS:
            return PROCEED
        served = self._find(call.tid, fd)
        if served is None:
            return PROCEED
        self._sweep(served)
        served.file.mmap(length, prot, flags, offset)
        return PROCEED

    def _fstat(self, call: Call, fd: int, pointer: int, *, extended: bool = False) -> Result:
        served = self._find(call.tid, fd)
        if served is None:
            return PROCEED
        if extended:
            data = pack_statx(served.node, served.identity)
        else:
            data = pack_stat(self._arch, served.node, served.identity)
        CallMemory(self._listener, call).write(pointer, data)
        return 0

    def _stat_at(self, call: Call, flags: int, pointer: int, *, extended: bool) -> Result:
        if not flags & AT_EMPTY_PATH:
            return PROCEED
        path = call.args[1]
        if path and CallMemory(self._listener, call).read(path, 1) != b"\0":
            return PROCEED
        return self._fstat(call, call.args[0], pointer, extended=extended)

    def _refuse(self, call: Call, error: int) -> Result:
        if self._find(call.tid, call.args[0]) is None:
            return PROCEED
        raise OSError(error, os.strerror(error))

    def _sweep(self, served: Served) -> None:
        """Free objects that lost their handles and, as /proc tells, their mappings too."""
        forgotten = served.file.forgotten()
        if len(forgotten) < SWEEP_OBJECTS and sum(size for _, size in forgotten) < SWEEP_BYTES:
            return
        store, _ = self._machine.store(served.node)
        ranges = mapped_ranges(store, self._machine.processes)
        if ranges is None:
            return
        for offset, size in forgotten:
            if not any(start < offset + size and offset < end for start, end in ranges):
                served.file.unmapped(offset)


def _signed(fd: int) -> int:
    """A descriptor argument: the kernel takes the low 32 bits as an int."""
    low = fd & 0xFFFF_FFFF
    return low - (1 << 32) if low >> 31 else low


