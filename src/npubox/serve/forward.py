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
from npubox.core.pending import Pending
from npubox.errors import DeviceError
from npubox.serve import rpc
from npubox.serve.caller import LARGEST_COPY
from npubox.serve.machine import JobWatcher, OpenFile, StorePlace
from npubox.serve.nodes import NodeInfo
from npubox.serve.rpc import Kind, Packet, pack, unsigned

_PAIR = struct.Struct("<QQ")


class _Over:
    """A wait at the server, as a `Completion`."""

    def __init__(self) -> None:
        self._callback: Callable[[], None] | None = None
        self.happened = False

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self._callback = callback
        return not self.happened

    def remove_callback(self, callback: Callable[[], None]) -> bool:
        known, self._callback = self._callback is not None, None
        return known

    def happen(self) -> None:
        self.happened = True
        if self._callback is not None:
            self._callback()


class ForwardedMachine:
    """A `ServedMachine` behind a socket. When its server dies every call answers ENODEV."""

    ready = True

    def __init__(self, path: Path) -> None:
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._channel.connect(str(path))
            data, stores, _, _ = socket.recv_fds(self._channel, rpc.LARGEST, 8)
        except OSError as error:
            raise DeviceError(f"the machine at {path} does not answer: {error.strerror}") from error
        for fd in stores:
            os.set_inheritable(fd, False)
        head = len(pack(Kind.HELLO))
        about = json.loads(data[head:])
        self.nodes: Sequence[NodeInfo] = tuple(_node(fields) for fields in about["nodes"])
        self.processes = frozenset(about["processes"])
        self.job_watcher: JobWatcher | None = None
        self._places = [
            StorePlace(fd, source, directory)
            for fd, source, directory in zip(stores, about["sources"], about["directories"], strict=True)
        ]
        self._tickets = itertools.count(1)
        self._over: dict[int, _Over] = {}
        self._unasked: deque[Packet] = deque()
        self._gone = False

    def power_up(self, done: Callable[[], None]) -> None:
        raise AssertionError("a served machine is powered up")

    def store(self, node: NodeInfo) -> StorePlace:
        return self._places[self.nodes.index(node)]

    def open(self, node: NodeInfo, flags: int, caller: Caller) -> OpenFile:
        request = pack(Kind.OPEN, self.nodes.index(node), flags, caller.pid, int(caller.sys_admin()))
        file, client_id = self.call(request, caller).numbers[:2]
        return ForwardedFile(self, file, client_id)

    def close(self) -> None:
        self._channel.close()
        for place in self._places:
            os.close(place.fd)

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

    def ioctl(self, file: int, request: int, address: int, caller: Caller) -> int | Pending:
        ticket = next(self._tickets)
        over = self._over[ticket] = _Over()
        answer = self.call(pack(Kind.IOCTL, file, request, address, caller.pid, ticket), caller)
        if answer.kind != Kind.WAITS:
            del self._over[ticket]
            return answer.numbers[0]
        deadline, forever, timeout_errno = answer.numbers[:3]
        pending = Pending([over], None if forever else deadline, timeout_errno)
        pending.on_finish(lambda error: self._finish(ticket, error, caller))
        return pending

    def _finish(self, ticket: int, error: OSError | None, caller: Caller) -> None:
        self._over.pop(ticket, None)
        self.call(pack(Kind.FINISH, ticket, (error.errno or errno.EIO) if error else 0), caller)

    def _converse(self, request: bytes, caller: Caller | None) -> Packet:
        if self._gone:
            raise OSError(errno.ENODEV, "the machine's server has died")
        try:
            self._channel.sendall(request)
            while (packet := rpc.receive(self._channel)) is not None:
                if packet.kind in (Kind.ANSWER, Kind.WAITS):
                    return packet
                if packet.kind in (Kind.OVER, Kind.JOB):
                    self._unasked.append(packet)
                else:
                    self._channel.sendall(_reply(packet, caller))
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
            elif self.job_watcher is not None:
                client_id, sequence, error = packet.numbers[:3]
                report = json.loads(packet.data) if packet.data else None
                self.job_watcher(client_id, sequence, error, report)


def _reply(question: Packet, caller: Caller | None) -> bytes:
    try:
        if caller is None:
            raise OSError(errno.ESRCH, "no call is in progress")
        if question.kind == Kind.RIGHTS:
            return pack(Kind.REPLY, int(caller.sys_admin()))
        address, size, whole = question.numbers[:3]
        if question.kind == Kind.READ:
            if whole > LARGEST_COPY:
                raise OSError(errno.ENOMEM, f"{whole} bytes are too many to copy from a program at once")
            return pack(Kind.REPLY, data=caller.memory.read(unsigned(address), size))
        caller.memory.write(unsigned(address), question.data)
        return pack(Kind.REPLY)
    except OSError as error:
        return pack(Kind.REPLY, error=error.errno or errno.EFAULT)


class ForwardedFile:
    """An `OpenFile` at the server."""

    def __init__(self, machine: ForwardedMachine, number: int, client_id: int) -> None:
        self._machine = machine
        self._number = number
        self.client_id = client_id

    def ioctl(self, request: int, address: int, caller: Caller) -> int | Pending:
        return self._machine.ioctl(self._number, request, address, caller)

    def mmap(self, length: int, prot: int, flags: int, offset: int) -> None:
        self._machine.call(pack(Kind.MMAP, self._number, length, prot, flags, offset))

    def forgotten(self) -> Sequence[tuple[int, int]]:
        data = self._machine.call(pack(Kind.FORGOTTEN, self._number)).data
        return [(offset, size) for offset, size in _PAIR.iter_unpack(data)]

    def unmapped(self, offset: int) -> None:
        self._machine.call(pack(Kind.UNMAPPED, self._number, offset))

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a dead server has closed it
            self._machine.call(pack(Kind.CLOSE, self._number))


def _node(fields: dict[str, Any]) -> NodeInfo:
    return NodeInfo(**{**fields, "compatible": tuple(fields["compatible"])})
