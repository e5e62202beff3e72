# SPDX-License-Identifier: Apache-2.0
"""What each system call on a served node means.

A descriptor is one of ours if the text of its /proc link is a name we gave to an open file, however
it came to the program (dup, fork, exec, SCM_RIGHTS). Everything else proceeds to the kernel.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Mapping
from pathlib import Path

from npubox.core.caller import Caller
from npubox.core.file import Mapped, NodeStandIn, PagesStandIn
from npubox.core.nodes import NodeInfo
from npubox.serve import linux, paths
from npubox.serve.bpf import AT_EMPTY_PATH, MAP_ANONYMOUS
from npubox.serve.caller import CallMemory, Tasks, has_sys_admin
from npubox.serve.descriptors import CallDescriptors
from npubox.serve.file_calls import FileCalls, fdinfo
from npubox.serve.injection import Injector
from npubox.serve.listener import Call, Listener
from npubox.serve.machine import ServedMachine
from npubox.serve.mapped import mapped_ranges
from npubox.serve.numbers import CopyCalls, Numbers
from npubox.serve.open_files import OpenFiles, Served
from npubox.serve.path_calls import PathCalls, signed
from npubox.serve.polling import PollCalls
from npubox.serve.stats import Shown, pack_stat, pack_statx
from npubox.serve.supervisor import ANSWERED, PROCEED, Handler, Result, Supervisor
from npubox.serve.syscalls import Arch

SWEEP_OBJECTS = 32
SWEEP_BYTES = 64 << 20


class NodeHandlers:
    """The nodes of one machine, to the programs of one launch: `nodes` has each that is shown, with the
    machine's own that it is."""

    def __init__(
        self,
        listener: Listener,
        supervisor: Supervisor,
        machine: ServedMachine,
        nodes: Mapping[NodeInfo, NodeInfo],
        arch: Arch,
        resolver: paths.Resolver,
        path_calls: bool,
        numbers: Numbers,
    ) -> None:
        self._listener = listener
        self._supervisor = supervisor
        self._machine = machine
        self._nodes = nodes
        self._arch = arch
        names = frozenset(node.name for node in nodes)
        self._paths = PathCalls(listener, resolver, arch, names)
        self._resolver = resolver
        self._answers_paths = path_calls
        self._numbers = numbers
        self._tasks = Tasks()
        self._files = FileCalls(listener, arch, self._find)
        self._copies = CopyCalls(listener, self._tasks, self._find)
        self._polls = PollCalls(
            listener, supervisor, arch, self._tasks, self._find, lambda: bool(self._open_files)
        )
        self._open_files = OpenFiles(
            supervisor.watch, lambda served: supervisor.note_released(served.path, served.file.client_id)
        )
        self._injector = Injector(
            listener, arch, lambda call: supervisor.post(lambda: supervisor.retry(call))
        )
        self._early: list[Call] = []

    @property
    def open_files(self) -> int:
        return len(self._open_files)

    def table(self) -> dict[int, Handler]:
        named: dict[str, Handler] = {
            "ioctl": self._ioctl,
            "openat": lambda call: self._open(call, call.args[0], call.args[1], call.args[2]),
            "open": lambda call: self._open(call, linux.AT_FDCWD, call.args[0], call.args[1]),
            "openat2": self._openat2,
            "mmap": self._mmap,
            "fstat": lambda call: self._fstat(call, call.args[0], call.args[1]),
            "newfstatat": lambda call: self._stat_at(call, call.args[3], call.args[2], extended=False),
            "statx": lambda call: self._stat_at(call, call.args[2], call.args[4], extended=True),
            "ftruncate": lambda call: self._refuse(call, errno.EINVAL),
            "fallocate": lambda call: self._refuse(call, errno.ENODEV),
        }
        named |= self._polls.table() | self._copies.table()
        if self._answers_paths:
            named |= self._paths.table()
        # Links of descriptors come first; for what they leave the paths' own answer is asked.
        named |= _one_after_the_other(self._files.table(), named)
        numbers = ((self._arch.number(name), handler) for name, handler in named.items())
        return {number: handler for number, handler in numbers if number is not None}

    def note_closed(self) -> None:
        self._open_files.note_closed()

    def close(self) -> None:
        """Nobody is left: release everything."""
        self._open_files.close()
        self._tasks.close()

    # open

    def _openat2(self, call: Call) -> Result:
        memory = CallMemory(self._listener, call)
        flags = int.from_bytes(memory.read(call.args[2], 8), "little")
        return self._open(call, call.args[0], call.args[1], flags)

    def _open(self, call: Call, directory: int, pointer: int, flags: int) -> Result:
        if flags & os.O_PATH or (not flags & os.O_ACCMODE and self._paths.glance(call.tid, pointer)):
            return PROCEED
        known = None
        try:
            path = os.fsdecode(CallMemory(self._listener, call).read_string(pointer))
            fd = paths.own_descriptor(path)
            shown = paths.own_fdinfo(path)
            if fd is not None:
                known = self._find(call.tid, fd)
            elif shown is not None:
                return self._open_fdinfo(call, shown, flags)
            elif not flags & os.O_ACCMODE and not self._paths.may_be_ours(path):
                return PROCEED
            path = paths.absolute(call.tid, signed(directory), path)
            found = self._resolver.find(call.tid, path, not flags & os.O_NOFOLLOW)
        except OSError:
            return PROCEED  # the kernel finds the words for it
        if known is not None:
            if known.node is None:
                raise OSError(errno.ENXIO, f"{known.path} cannot be opened again")
            return self._open_node(call, known.node, known.shown, flags)
        if found is None:
            return PROCEED
        if found.node is not None:
            return self._open_node(call, found.node, Shown.of(found.stat, found.node), flags)
        assert found.file is not None
        return self._open_file(call, found.file, flags)

    def _open_file(self, call: Call, file: Path, flags: int) -> Result:
        """A file or directory of ours below /sys or /dev: the program gets it as it is, read-only."""
        if flags & (os.O_ACCMODE | os.O_CREAT | os.O_TRUNC):
            raise OSError(errno.EACCES, f"{file.name} is read-only")
        fd = os.open(file, flags | os.O_CLOEXEC)
        try:
            self._listener.add_fd(call.id, fd, bool(flags & os.O_CLOEXEC), answer=True)
        finally:
            os.close(fd)
        return ANSWERED

    def _open_fdinfo(self, call: Call, fd: int, flags: int) -> Result:
        served = self._find(call.tid, fd)
        if served is None or flags & os.O_ACCMODE:
            return PROCEED
        text = fdinfo(call.tid, fd, served, self._arch.o_largefile)
        file = os.memfd_create("npubox-fdinfo", os.MFD_CLOEXEC)
        try:
            os.write(file, text.encode())
            os.lseek(file, 0, os.SEEK_SET)
            self._listener.add_fd(call.id, file, bool(flags & os.O_CLOEXEC), answer=True)
        finally:
            os.close(file)
        return ANSWERED

    def _open_node(self, call: Call, node: NodeInfo, shown: Shown, flags: int) -> Result:
        if flags & os.O_CREAT and flags & os.O_EXCL:
            raise OSError(errno.EEXIST, f"{node.path} exists")
        if flags & os.O_DIRECTORY:
            raise OSError(errno.ENOTDIR, f"{node.path} is no directory")
        if not self._machine.ready:
            self._early.append(call)
            if len(self._early) == 1:
                self._machine.power_up(lambda: self._supervisor.post(self._powered_up))
            return ANSWERED
        file = self._machine.open(self._nodes[node], flags, self._caller(call))
        try:
            _, fd = self._open_files.add_node(file, node, flags, shown)
        except BaseException:
            file.release()
            raise
        # From here on the close event of our own or the program's descriptor releases the file.
        try:
            number = self._numbers.add(call, fd, bool(flags & os.O_CLOEXEC), answer=True)
        finally:
            os.close(fd)
        if number is not None:
            self._supervisor.note(call, number)
        return ANSWERED

    def _powered_up(self) -> None:
        early, self._early = self._early, []
        for call in early:
            self._supervisor.retry(call)

    # calls on descriptors

    def _find(self, tid: int, fd: int) -> Served | None:
        if not self._open_files:  # most programs of a launch never touch a node, and must not pay for it
            return None
        link = self._tasks.link(tid, signed(fd))
        return None if link is None else self._open_files.find(link)

    def node_path(self, tid: int, fd: int) -> str | None:
        """What readlink tells of a descriptor, such as its node; None for one that is not ours."""
        served = self._find(tid, fd)
        return None if served is None else served.path

    def _caller(self, call: Call) -> Caller:
        tid = call.tid
        return Caller(
            self._tasks.get(tid).tgid,
            lambda: has_sys_admin(tid),
            CallMemory(self._listener, call),
            CallDescriptors(self._numbers, call, self._tasks, self._open_files),
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
        file, stand_in = served.file, served.file.stand_in
        if isinstance(file, Mapped) and isinstance(stand_in, NodeStandIn):
            self._sweep(file, stand_in.fd)
        backing = file.mmap(length, prot, flags, offset, self._caller(call))
        native = isinstance(stand_in, NodeStandIn | PagesStandIn) and backing[:2] == (stand_in.fd, offset)
        if native and (backing.writable or not prot & mmap.PROT_WRITE):
            return PROCEED
        store = self._open_files.add_mapping(served, backing)
        try:
            allowed = prot if backing.writable else prot & ~mmap.PROT_WRITE
            self._injector.map(call, store, allowed, backing.offset)
        finally:
            os.close(store)
        return ANSWERED

    def _fstat(self, call: Call, fd: int, pointer: int, *, extended: bool = False) -> Result:
        served = self._find(call.tid, fd)
        if served is None:
            return PROCEED
        data = pack_statx(served.shown) if extended else pack_stat(self._arch, served.shown)
        CallMemory(self._listener, call).write(pointer, data)
        return 0

    def _stat_at(self, call: Call, flags: int, pointer: int, *, extended: bool) -> Result:
        directory, path = call.args[:2]
        if not self._open_files and not self._answers_paths:
            return PROCEED
        if flags & AT_EMPTY_PATH and (not path or CallMemory(self._listener, call).read(path, 1) == b"\0"):
            return self._fstat(call, directory, pointer, extended=extended)
        if not self._answers_paths:
            return PROCEED
        return self._paths.stat(call, directory, path, pointer, flags, extended=extended)

    def _refuse(self, call: Call, error: int) -> Result:
        if self._find(call.tid, call.args[0]) is None:
            return PROCEED
        raise OSError(error, os.strerror(error))

    def _sweep(self, file: Mapped, store: int) -> None:
        """Free objects that lost their handles and, as /proc tells, their mappings too."""
        forgotten = file.forgotten()
        if len(forgotten) < SWEEP_OBJECTS and sum(size for _, size in forgotten) < SWEEP_BYTES:
            return
        ranges = mapped_ranges(store, self._machine.processes)
        if ranges is None:
            return
        for offset, size in forgotten:
            if not any(start < offset + size and offset < end for start, end in ranges):
                file.unmapped(offset)


def _one_after_the_other(first: dict[str, Handler], second: dict[str, Handler]) -> dict[str, Handler]:
    """The handlers of `first`, each followed by `second`'s of the same call if it leaves that alone."""

    def both(one: Handler, other: Handler | None) -> Handler:
        def handler(call: Call) -> Result:
            result = one(call)
            return result if result is not PROCEED or other is None else other(call)

        return handler

    return {name: both(one, second.get(name)) for name, one in first.items()}
