# SPDX-License-Identifier: Apache-2.0
"""A machine of `npubox serve` as a launch's supervisor sees it: calls are forwarded, memory stays here."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import select
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from npubox.core.caller import Caller
from npubox.core.file import (
    Backing,
    NodeStandIn,
    OpenFile,
    PagesStandIn,
    SignalStandIn,
    StandIn,
    TokenStandIn,
)
from npubox.core.nodes import NodeInfo
from npubox.core.pending import Completion, Pending
from npubox.errors import DeviceError
from npubox.machines.part import AttributeWatcher, JobWatcher
from npubox.serve import rpc
from npubox.serve.caller import LARGEST_COPY
from npubox.serve.rpc import Held, Kind, Packet, pack, unsigned

_PAIR = struct.Struct("<QQ")


class Over:
    """Something that happens at the server, as a `Completion`."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], None]] = []
        self._happened = False

    def add_callback(self, callback: Callable[[], None]) -> bool:
        if not self._happened:
            self._callbacks.append(callback)
        return not self._happened

    def remove_callback(self, callback: Callable[[], None]) -> bool:
        if callback not in self._callbacks:
            return False
        self._callbacks.remove(callback)
        return True

    def happen(self) -> None:
        self._happened = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


class ForwardedMachine:
    """A `ServedMachine` behind a socket. When its server dies every call answers ENODEV."""

    ready = True

    def __init__(self, path: Path) -> None:
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._channel.connect(str(path))
            hello = rpc.receive(self._channel)
        except OSError as error:
            raise DeviceError(f"the machine at {path} does not answer: {error.strerror}") from error
        if hello is None or hello.fd is None:
            raise DeviceError(f"the machine at {path} is going down")
        with open(hello.fd, "rb") as file:
            about = json.loads(os.pread(file.fileno(), hello.numbers[0], 0))
        self.nodes: Sequence[NodeInfo] = tuple(_node(fields) for fields in about["nodes"])
        self.processes = frozenset(about["processes"])
        self.job_watcher: JobWatcher | None = None
        self.attribute_watcher: AttributeWatcher | None = None  # a served machine's sysfs stays as it began
        self._tickets = itertools.count(1)
        self._over: dict[int, Over] = {}
        self._stores: dict[tuple[int, int], int] = {}
        self.files: dict[int, ForwardedFile] = {}
        self._unasked: deque[Packet] = deque()
        self._gone = False

    def power_up(self, done: Callable[[], None]) -> None:
        raise AssertionError("a served machine is powered up")

    def open(self, node: NodeInfo, flags: int, caller: Caller) -> OpenFile:
        request = pack(Kind.OPEN, self.nodes.index(node), flags, caller.pid, int(caller.sys_admin()))
        return self.file(self.call(request, caller))

    def file(self, packet: Packet) -> ForwardedFile:
        """The file that a packet describes."""
        number = packet.numbers[0]
        known = self.files.get(number)
        if known is None:
            known = self.files[number] = ForwardedFile(self, packet)
        elif packet.fd is not None:
            os.close(packet.fd)
        return known

    def keep(self, fd: int) -> int:
        """A store's descriptor for as long as the launch lasts, always the same one."""
        about = os.fstat(fd)
        kept = self._stores.setdefault((about.st_dev, about.st_ino), fd)
        if kept != fd:
            os.close(fd)
        return kept

    def close(self) -> None:
        self._channel.close()
        for fd in self._stores.values():
            os.close(fd)

    def events(self) -> tuple[int, Callable[[], bool]]:
        return self._channel.fileno(), self._listen

    def _listen(self) -> bool:
        """Take what the server said unasked; False once it is gone."""
        while not self._gone and select.select([self._channel], [], [], 0)[0]:
            packet = rpc.receive(self._channel)
            if packet is None:
                self._lose()
            else:
                self._unasked.append(packet)
        self._work_off()
        return not self._gone

    def call(self, request: bytes, caller: Caller | None = None) -> Packet:
        """Send a request and serve the server's questions until it answers. OSError with its errno."""
        answer = self._converse(request, caller)
        self._work_off()
        if answer.error:
            raise OSError(answer.error, os.strerror(answer.error))
        return answer

    def ticket(self) -> tuple[int, Over]:
        """Something that the server can say is over."""
        ticket = next(self._tickets)
        over = self._over[ticket] = Over()
        return ticket, over

    def forget(self, ticket: int) -> None:
        del self._over[ticket]

    def call_with(
        self, ticket: tuple[int, Over], request: bytes, caller: Caller | None = None
    ) -> Packet | Pending:
        """A request that may wait under its ticket."""
        number, over = ticket
        try:
            answer = self.call(request, caller)
        except OSError:
            self.forget(number)
            raise
        if answer.kind != Kind.WAITS:
            self.forget(number)
            return answer
        deadline, forever, timeout_errno = answer.numbers[:3]
        pending = Pending([over], None if forever else deadline, timeout_errno)
        pending.on_finish(lambda error: self._finish(pending, number, error, caller))
        return pending

    def _finish(self, pending: Pending, ticket: int, error: OSError | None, caller: Caller | None) -> None:
        self._over.pop(ticket, None)
        request = pack(Kind.FINISH, ticket, (error.errno or errno.EIO) if error else 0)
        pending.result = self.call(request, caller).numbers[0]

    def _converse(self, request: bytes, caller: Caller | None) -> Packet:
        if self._gone:
            raise OSError(errno.ENODEV, "the machine's server has died")
        try:
            rpc.send(self._channel, request)
            while (packet := rpc.receive(self._channel)) is not None:
                if packet.kind in (Kind.ANSWER, Kind.WAITS):
                    return packet
                if packet.kind in (Kind.OVER, Kind.JOB, Kind.HAPPENED):
                    self._unasked.append(packet)
                else:
                    self._reply(packet, caller)
        except ConnectionError:
            pass
        self._lose()
        raise OSError(errno.ENODEV, "the machine's server has died")

    def _lose(self) -> None:
        self._gone = True
        for ticket in list(self._over):
            self._unasked.append(Packet(Kind.OVER, 0, (ticket,), b""))

    def _work_off(self) -> None:
        while self._unasked:
            packet = self._unasked.popleft()
            if packet.kind == Kind.OVER:
                over = self._over.get(packet.numbers[0])
                if over is not None:
                    over.happen()
            elif packet.kind == Kind.HAPPENED:
                file = self.files.get(packet.numbers[0])
                if file is not None:
                    file.happened.happen()
            elif self.job_watcher is not None:
                client_id, sequence, error = packet.numbers[:3]
                report = json.loads(packet.data) if packet.data else None
                self.job_watcher(client_id, sequence, error, report)

    def _reply(self, question: Packet, caller: Caller | None) -> None:
        fd = None
        try:
            if caller is None:
                raise OSError(errno.ESRCH, "no call is in progress")
            if question.kind == Kind.DUPLICATE:
                fd = caller.files.duplicate(question.numbers[0])
                answer = pack(Kind.REPLY)
            else:
                answer = self._ask_caller(question, caller)
        except OSError as error:
            answer = pack(Kind.REPLY, error=error.errno or errno.EFAULT)
        try:
            rpc.send(self._channel, answer, fd)
        finally:
            if fd is not None:
                os.close(fd)

    def _ask_caller(self, question: Packet, caller: Caller) -> bytes:
        numbers = question.numbers
        match question.kind:
            case Kind.RIGHTS:
                return pack(Kind.REPLY, int(caller.sys_admin()))
            case Kind.READ:
                address, size, whole = numbers[:3]
                if whole > LARGEST_COPY:
                    raise OSError(errno.ENOMEM, f"{whole} bytes are too many to copy from a program at once")
                return pack(Kind.REPLY, data=caller.memory.read(unsigned(address), size))
            case Kind.WRITE:
                caller.memory.write(unsigned(numbers[0]), question.data)
                return pack(Kind.REPLY)
            case Kind.INSTALL:
                return pack(Kind.REPLY, caller.files.install(self.file(question), numbers[4]))
            case _:
                assert question.kind == Kind.LOOKUP
                file = caller.files.lookup(numbers[0])
                return pack(Kind.REPLY, file.number if isinstance(file, ForwardedFile) else 0)


class ForwardedFile(OpenFile):
    """An open file at the server, as packet FILE tells of it."""

    def __init__(self, machine: ForwardedMachine, about: Packet) -> None:
        self._machine = machine
        self.number, self.client_id, held, size = about.numbers[:4]
        self.link = about.data.decode()
        self.happened = Over()
        self._owned = about.fd if held == Held.PAGES else None
        match held:
            case Held.NODE:
                assert about.fd is not None
                self.stand_in: StandIn = NodeStandIn(machine.keep(about.fd))
            case Held.PAGES:
                assert about.fd is not None
                self.stand_in = PagesStandIn(about.fd, size)
            case Held.TOKEN:
                self.stand_in = TokenStandIn(size)
            case _:
                self.stand_in = SignalStandIn(self.happened)

    def ioctl(self, request: int, address: int, caller: Caller) -> int | Pending:
        ticket = self._machine.ticket()
        packet = pack(Kind.IOCTL, self.number, request, address, caller.pid, ticket[0])
        answer = self._machine.call_with(ticket, packet, caller)
        return answer if isinstance(answer, Pending) else answer.numbers[0]

    def mmap(self, length: int, prot: int, flags: int, offset: int, caller: Caller) -> Backing:
        request = pack(Kind.MMAP, self.number, length, prot, flags, offset, caller.pid)
        answer = self._machine.call(request, caller)
        assert answer.fd is not None
        start, writable = answer.numbers[0], bool(answer.numbers[1])
        if self._owned is not None and os.path.sameopenfile(answer.fd, self._owned):
            os.close(answer.fd)
            return Backing(self._owned, start, writable)
        return Backing(self._machine.keep(answer.fd), start, writable)

    def poll(self) -> int:
        return self._machine.call(pack(Kind.POLL, self.number)).numbers[0]

    def poll_changes(self) -> Completion | None:
        ticket, over = self._machine.ticket()
        if self._machine.call(pack(Kind.CHANGES, self.number, ticket)).numbers[0]:
            return over
        self._machine.forget(ticket)
        return None

    def read(self, size: int, nonblocking: bool) -> bytes | Pending:
        ticket = self._machine.ticket()
        packet = pack(Kind.READ_FILE, self.number, min(size, rpc.LARGEST), int(nonblocking), ticket[0])
        answer = self._machine.call_with(ticket, packet)
        return answer if isinstance(answer, Pending) else answer.data

    def write(self, data: bytes) -> int:
        packet = pack(Kind.WRITE_FILE, self.number, data=data[: rpc.LARGEST])
        return self._machine.call(packet).numbers[0]

    def lseek(self, offset: int, whence: int) -> int:
        return self._machine.call(pack(Kind.LSEEK, self.number, offset, whence)).numbers[0]

    def fdinfo(self) -> str:
        return self._machine.call(pack(Kind.FDINFO, self.number)).data.decode()

    def forgotten(self) -> Sequence[tuple[int, int]]:
        data = self._machine.call(pack(Kind.FORGOTTEN, self.number)).data
        return [(offset, size) for offset, size in _PAIR.iter_unpack(data)]

    def unmapped(self, offset: int) -> None:
        self._machine.call(pack(Kind.UNMAPPED, self.number, offset))

    def release(self) -> None:
        self._machine.files.pop(self.number, None)
        if self._owned is not None:
            os.close(self._owned)
        with contextlib.suppress(OSError):  # a dead server has closed it
            self._machine.call(pack(Kind.CLOSE, self.number))


def _node(fields: dict[str, Any]) -> NodeInfo:
    return NodeInfo(
        **{
            **fields,
            "compatible": tuple(fields["compatible"]),
            "ioctl_types": tuple(fields["ioctl_types"]),
            **{name: tuple(map(tuple, fields[name])) for name in ("attributes", "class_attributes", "tools")},
        }
    )
