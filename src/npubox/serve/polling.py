# SPDX-License-Identifier: Apache-2.0
"""poll, select and epoll_ctl of sets that hold files whose stand-ins the kernel would call ready, or refuse.

The signal mask of ppoll and pselect is not applied to a wait that is ours. That these calls are notified at
all has a second use: the files that were closed before them are released first, which may signal what they
wait for. Source: the project's facts (device-nodes.md §5).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import struct
import time
from collections.abc import Callable, Iterator

from npubox.core.file import OpenFile, SignalStandIn
from npubox.core.pending import Completion, FirstOf, Pending
from npubox.serve.bpf import POLLED_FDS
from npubox.serve.caller import CallMemory, Tasks
from npubox.serve.linux import fetch_descriptor
from npubox.serve.listener import Call, Listener
from npubox.serve.open_files import Served
from npubox.serve.path_calls import signed
from npubox.serve.supervisor import PROCEED, Again, Handler, Result, Supervisor
from npubox.serve.syscalls import X86_64, Arch

_POLLFD = struct.Struct("<ihh")
_TIMESPEC = struct.Struct("<qq")
ALWAYS_TOLD = select.POLLERR | select.POLLHUP | select.POLLNVAL
US, NS = 10**6, 10**9
EPOLL_CTL_DEL = 2
FD_SETSIZE = 1024
_READ = select.POLLIN | select.POLLRDNORM | select.POLLRDBAND
_WRITE = select.POLLOUT | select.POLLWRNORM | select.POLLWRBAND
_SELECTED = (
    (_READ, _READ | select.POLLHUP | select.POLLERR),
    (_WRITE, _WRITE | select.POLLERR),
    (select.POLLPRI, select.POLLPRI),
)
"""Of each set of select(2): what only its files are asked for, and what sets a bit."""


class PollCalls:
    """`find` gives the open file behind a descriptor of a thread, None for one that is not ours; `any_open`
    tells whether there is any."""

    def __init__(
        self,
        listener: Listener,
        supervisor: Supervisor,
        arch: Arch,
        tasks: Tasks,
        find: Callable[[int, int], Served | None],
        any_open: Callable[[], bool],
    ) -> None:
        self._listener = listener
        self._supervisor = supervisor
        self._any_open = any_open
        self._event = struct.Struct("<IQ" if arch is X86_64 else "<I4xQ")
        self._tasks = tasks
        self._find = find
        self._waits: dict[int, _Wait] = {}

    def table(self) -> dict[str, Handler]:
        return {
            "poll": lambda call: self._poll(call, lambda: _milliseconds(call.args[2])),
            "ppoll": lambda call: self._poll(call, lambda: self._timeout(call, call.args[2], NS)),
            "select": lambda call: self._select(call, US),
            "pselect6": lambda call: self._select(call, NS),
            "epoll_ctl": self._epoll_ctl,
        }

    def _timeout(self, call: Call, pointer: int, unit: int) -> int | None:
        """Nanoseconds of a struct whose second field has `unit` in a second; None for no limit."""
        if not pointer:
            return None
        seconds, rest = _TIMESPEC.unpack(CallMemory(self._listener, call).read(pointer, _TIMESPEC.size))
        if seconds < 0 or rest < 0 or (unit == NS and rest >= NS):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return int(seconds * NS + rest * (NS // unit))

    def _poll(self, call: Call, timeout: Callable[[], int | None]) -> Result:
        address, count = call.args[:2]

        def read() -> list[tuple[int, int]]:
            data = CallMemory(self._listener, call).read(address, _POLLFD.size * count)
            return [(fd, events & 0xFFFF) for fd, events, _ in _POLLFD.iter_unpack(data)]

        def write(wait: _Wait, found: list[int]) -> int:
            memory = CallMemory(self._listener, call)
            for index, events in enumerate(found):
                memory.write(address + _POLLFD.size * index + 6, events.to_bytes(2, "little"))
            return sum(map(bool, found))

        if not 0 < count <= POLLED_FDS:
            return PROCEED
        return self._wait(call, timeout, read, write, ALWAYS_TOLD)

    def _select(self, call: Call, unit: int) -> Result:
        """`unit`: in a second, of the second field of the time-out, which is told what was left of it."""
        count = signed(call.args[0])
        pointers = call.args[1:4]
        if not 0 < count <= FD_SETSIZE:
            return PROCEED
        size = (count + 63) // 64 * 8

        def read() -> list[tuple[int, int]]:
            memory = CallMemory(self._listener, call)
            found = [0] * count
            for pointer, (_, set_by) in zip(pointers, _SELECTED, strict=True):
                bits = int.from_bytes(memory.read(pointer, size), "little") if pointer else 0
                for fd in range(count):
                    found[fd] |= set_by * (bits >> fd & 1)
            return [(fd, events) for fd, events in enumerate(found) if events]

        def write(wait: _Wait, found: list[int]) -> int:
            if select.POLLNVAL in found:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            memory = CallMemory(self._listener, call)
            total = 0
            for pointer, (own, set_by) in zip(pointers, _SELECTED, strict=True):
                ready = sum(
                    1 << fd
                    for (fd, events), seen in zip(wait.asked, found, strict=True)
                    if events & own and seen & set_by
                )
                total += ready.bit_count()
                if pointer:
                    memory.write(pointer, ready.to_bytes(size, "little"))
            if call.args[4]:
                seconds, rest = divmod(wait.left, NS)
                memory.write(call.args[4], _TIMESPEC.pack(seconds, rest // (NS // unit)))
            return total

        return self._wait(call, lambda: self._timeout(call, call.args[4], unit), read, write, select.POLLNVAL)

    def _wait(
        self,
        call: Call,
        timeout: Callable[[], int | None],
        read: Callable[[], list[tuple[int, int]]],
        write: Callable[[_Wait, list[int]], int],
        told: int,
    ) -> Result:
        """Answer a call about the descriptors and events that `read` gives, if one of them is ours, with what
        `write` makes of the events found. `told` are those of which it hears unasked."""
        wait = self._waits.pop(call.id, None) or self._begin(call, timeout, read, told)
        if wait is None:
            return PROCEED
        events = wait.events()
        if any(events) or wait.over:
            wait.close()
            return write(wait, events)
        self._waits[call.id] = wait
        pending = Pending([FirstOf(wait.changes())], wait.deadline, timeout_errno=0)
        pending.on_finish(lambda error: self._give_up(call.id) if error else None)
        return Again(pending)

    def _begin(
        self,
        call: Call,
        timeout: Callable[[], int | None],
        read: Callable[[], list[tuple[int, int]]],
        told: int,
    ) -> _Wait | None:
        if not self._any_open():
            return None
        entries = read()
        files = [self._find(call.tid, fd) if fd >= 0 else None for fd, _ in entries]
        if not any(served is not None and asked(served.file) for served in files):
            return None
        limit = timeout()
        deadline = None if limit is None else time.monotonic_ns() + limit
        wait = _Wait(self._supervisor, deadline, entries, told)
        for (fd, events), served in zip(entries, files, strict=True):
            if served is not None and asked(served.file):
                wait.add_file(served.file, events)
            elif fd < 0:
                wait.add_nothing()
            else:
                wait.add_foreign(self._copy(call.tid, fd), events)
        return wait

    def _copy(self, tid: int, fd: int) -> int | None:
        try:
            return fetch_descriptor(self._tasks.get(tid).tgid, fd)
        except OSError as error:
            if error.errno == errno.EBADF:
                return None
            raise

    def _give_up(self, id_: int) -> None:
        self._waits.pop(id_).close()

    def _epoll_ctl(self, call: Call) -> Result:
        """The caller's epoll instance is given a descriptor of our own, which is readable while the file
        is."""
        epoll, operation, fd, pointer = call.args[:4]
        served = self._find(call.tid, fd)
        if served is None or not asked(served.file):
            return PROCEED
        data = None
        if operation != EPOLL_CTL_DEL:
            data = CallMemory(self._listener, call).read(pointer, self._event.size)
            events, _ = self._event.unpack(data)
            if not events & select.EPOLLIN:
                raise OSError(errno.EOPNOTSUPP, "epoll on a served file is modelled for EPOLLIN only")
        if served.mirror is None:
            served.mirror = Mirror(served.file, self._supervisor)
        instance = fetch_descriptor(self._tasks.get(call.tid).tgid, signed(epoll))
        try:
            _epoll_ctl(instance, signed(operation), served.mirror.fd, data)
        finally:
            os.close(instance)
        return 0


def _milliseconds(argument: int) -> int | None:
    timeout = signed(argument)
    return None if timeout < 0 else timeout * 10**6


def asked(file: OpenFile) -> bool:
    """Whether the file itself is to be asked: the kernel knows of a pipe, and of files that cannot be
    polled."""
    return not isinstance(file.stand_in, SignalStandIn) and type(file).poll is not OpenFile.poll


class _Wait:
    """One poll call: its files in order, each ours, the caller's other ones (as copies), or none."""

    def __init__(
        self, supervisor: Supervisor, deadline: int | None, asked_for: list[tuple[int, int]], told: int
    ) -> None:
        self.deadline = deadline
        self.asked = asked_for
        self._told = told
        self._entries: list[tuple[OpenFile | int | None, int]] = []
        self._others = _Others(supervisor)

    @property
    def over(self) -> bool:
        return self.deadline is not None and time.monotonic_ns() >= self.deadline

    @property
    def left(self) -> int:
        """Nanoseconds until the deadline, which there is."""
        assert self.deadline is not None
        return max(self.deadline - time.monotonic_ns(), 0)

    def add_file(self, file: OpenFile, events: int) -> None:
        self._entries.append((file, events))

    def add_nothing(self) -> None:
        self._entries.append((None, 0))

    def add_foreign(self, copy: int | None, events: int) -> None:
        """`copy` None: the descriptor is not open."""
        self._entries.append((-1 if copy is None else copy, events))
        if copy is not None:
            self._others.add(copy, events)

    def events(self) -> list[int]:
        """What is set of each entry now."""
        found = []
        for entry, events in self._entries:
            if entry is None:
                found.append(0)
            elif isinstance(entry, int):
                seen = select.POLLNVAL if entry < 0 else self._others.events(entry)
                found.append(seen & (events | self._told))
            else:
                found.append(entry.poll() & (events | self._told))
        return found

    def changes(self) -> Iterator[Completion]:
        """What to wait for until `events` may tell something else."""
        yield self._others
        for entry, _ in self._entries:
            if entry is not None and not isinstance(entry, int):
                change = entry.poll_changes()
                if change is not None:
                    yield change

    def close(self) -> None:
        self._others.close()


class _Others:
    """Copies of descriptors that are not ours to answer for; a `Completion`: one of them is ready."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._poll = select.poll()
        self._epoll: select.epoll | None = None
        self._copies: list[int] = []
        self._callback: Callable[[], None] | None = None

    def add(self, copy: int, events: int) -> None:
        self._copies.append(copy)
        self._poll.register(copy, events)
        if self._epoll is None:
            self._epoll = select.epoll()
        with contextlib.suppress(PermissionError):  # a file that is always ready: nobody will wait for it
            self._epoll.register(copy, events | select.EPOLLET)  # a hang-up that nobody asked for comes once

    def events(self, copy: int) -> int:
        return dict(self._poll.poll(0)).get(copy, 0)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        if self._epoll is not None:
            self._callback = callback
            self._supervisor.attend(self._epoll.fileno(), self._ready)
        return True

    def remove_callback(self, callback: Callable[[], None]) -> bool:
        known, self._callback = self._callback is not None, None
        if known and self._epoll is not None:
            self._supervisor.ignore(self._epoll.fileno())
        return known

    def close(self) -> None:
        self._callback = None
        if self._epoll is not None:
            self._supervisor.ignore(self._epoll.fileno())
            self._epoll.close()
        for copy in self._copies:
            os.close(copy)

    def _ready(self) -> bool:
        assert self._epoll is not None
        self._epoll.poll(0)
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()
        return False


class Mirror:
    """A descriptor of ours that is readable while a file is, for epoll instances of programs."""

    def __init__(self, file: OpenFile, supervisor: Supervisor) -> None:
        self._file = file
        self._supervisor = supervisor
        self.fd, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._lit = self._closed = False
        self.update()

    def update(self) -> None:
        """The file's events may have changed."""
        if self._closed:
            return
        ready = bool(self._file.poll() & select.POLLIN)
        if ready != self._lit:
            os.write(self._writer, b"\0") if ready else os.read(self.fd, 1)
            self._lit = ready
        change = self._file.poll_changes()
        if change is not None and not change.add_callback(lambda: self._supervisor.post(self.update)):
            self._supervisor.post(self.update)

    def close(self) -> None:
        self._closed = True
        os.close(self.fd)
        os.close(self._writer)


_libc = ctypes.CDLL(None, use_errno=True)


def _epoll_ctl(instance: int, operation: int, fd: int, event: bytes | None) -> None:
    """epoll_ctl(2) with an event as the caller has it, its data included. OSError."""
    if _libc.epoll_ctl(instance, operation, fd, event) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
