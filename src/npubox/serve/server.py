# SPDX-License-Identifier: Apache-2.0
"""`npubox serve`: a machine that outlives programs. Launches connect, each served by a thread here."""

from __future__ import annotations

import errno
import functools
import json
import logging
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from npubox.core.caller import Caller
from npubox.core.file import (
    Mapped,
    NodeStandIn,
    OpenFile,
    PagesStandIn,
    SignalStandIn,
    TokenStandIn,
)
from npubox.core.pending import Completion, Pending
from npubox.serve import rpc
from npubox.serve.machine import ServedMachine
from npubox.serve.rpc import Held, Kind, Packet, pack, unsigned
from npubox.serve.workspace import Anchor

_log = logging.getLogger(__name__)
BACKLOG = 64


def bind(path: Path) -> socket.socket:
    """A listening socket; FileExistsError where a live server has it already."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(str(path))
    except OSError as error:
        if error.errno != errno.EADDRINUSE or _answers(path):
            listener.close()
            raise FileExistsError(f"{path} is served already") from error
        path.unlink()
        listener.bind(str(path))
    listener.listen(BACKLOG)
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


class Server:
    """Serves one powered-up machine until `listener` is closed."""

    def __init__(self, machine: ServedMachine) -> None:
        self._machine = machine
        self._anchors = Anchors()
        self._guard = threading.Lock()
        self._connections: set[_Connection] = set()
        machine.job_watcher = self._job

    def run(self, listener: socket.socket) -> None:
        while True:
            try:
                channel, _ = listener.accept()
            except OSError:
                return
            connection = _Connection(channel, self._machine, self._hello(), self._anchors)
            with self._guard:
                self._connections.add(connection)
            threading.Thread(
                target=self._serve, args=(connection,), name="npubox-launch", daemon=True
            ).start()

    def close(self) -> None:
        """Once the listener is closed: take the stores' names away."""
        self._anchors.close()

    def _serve(self, connection: _Connection) -> None:
        try:
            connection.run()
        except Exception:
            _log.exception("serving a launch failed")
        finally:
            with self._guard:
                self._connections.discard(connection)
            connection.close()

    def _hello(self) -> bytes:
        about = {
            "processes": sorted(self._machine.processes),
            "nodes": [asdict(node) for node in self._machine.nodes],
        }
        return json.dumps(about).encode()

    def _job(self, client_id: int, sequence: int, error: int, report: Any) -> None:
        data = b"" if report is None else json.dumps(asdict(report)).encode()
        packet = pack(Kind.JOB, client_id, sequence, error, data=data)
        with self._guard:
            connections = list(self._connections)
        for connection in connections:
            if client_id in connection.clients:
                connection.send(packet)


class Anchors:
    """Lasting names of the stores that launches link."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._anchors: dict[tuple[int, int], Anchor] = {}

    def hold(self, fd: int) -> None:
        about = os.fstat(fd)
        with self._guard:
            if (about.st_dev, about.st_ino) not in self._anchors:
                self._anchors[about.st_dev, about.st_ino] = Anchor(fd)

    def close(self) -> None:
        for anchor in self._anchors.values():
            anchor.close()


class _Connection:
    """One launch. Requests come one after the other; only `send` may be called by other threads."""

    def __init__(
        self, channel: socket.socket, machine: ServedMachine, hello: bytes, anchors: Anchors
    ) -> None:
        self._channel = channel
        self._machine = machine
        self._hello = hello
        self._anchors = anchors
        self._sending = threading.Lock()
        self._files: dict[int, OpenFile] = {}
        self._numbers: dict[OpenFile, int] = {}
        self._happened: dict[int, Callable[[], None]] = {}
        self._waiting: dict[int, Pending] = {}
        self._next_file = 1
        self.clients: set[int] = set()
        self._requests: dict[int, Callable[[Packet], bytes]] = {
            Kind.IOCTL: self._ioctl,
            Kind.POLL: lambda request: pack(Kind.ANSWER, self._file(request).poll()),
            Kind.CHANGES: self._changes,
            Kind.READ_FILE: self._read,
            Kind.WRITE_FILE: lambda request: pack(Kind.ANSWER, self._file(request).write(request.data)),
            Kind.LSEEK: lambda request: pack(Kind.ANSWER, self._file(request).lseek(*request.numbers[1:3])),
            Kind.FDINFO: lambda request: pack(Kind.ANSWER, data=self._file(request).fdinfo().encode()),
            Kind.FORGOTTEN: self._forgotten,
            Kind.UNMAPPED: self._unmapped,
            Kind.CLOSE: self._close,
            Kind.FINISH: self._finish,
        }

    def send(self, packet: bytes, fd: int | None = None) -> None:
        try:
            with self._sending:
                rpc.send(self._channel, packet, fd)
        except OSError:
            pass  # the launch is gone, and `run` ends

    def ask(self, packet: bytes, fd: int | None = None) -> Packet:
        """Ask the launch about the caller of the request in progress. OSError with its errno."""
        self.send(packet, fd)
        answer = rpc.receive(self._channel)
        if answer is None or answer.kind != Kind.REPLY:
            raise OSError(errno.ESRCH, "the launch is gone")
        if answer.error:
            raise OSError(answer.error, os.strerror(answer.error))
        return answer

    def run(self) -> None:
        with open(os.memfd_create("npubox-hello", os.MFD_CLOEXEC), "wb") as file:
            file.write(self._hello)
            file.flush()
            self.send(pack(Kind.HELLO, len(self._hello)), file.fileno())
        while (request := rpc.receive(self._channel)) is not None:
            fd = None
            try:
                if request.kind == Kind.OPEN:
                    answer, fd = self._open(request)
                elif request.kind == Kind.MMAP:
                    answer, fd = self._mmap(request)
                else:
                    answer = self._requests[request.kind](request)
            except OSError as error:
                answer = pack(Kind.ANSWER, error=error.errno or errno.EIO)
            except Exception:
                _log.exception("a call failed in the machine server")
                answer = pack(Kind.ANSWER, error=errno.EIO)
            self.send(answer, fd)

    def close(self) -> None:
        """The launch is gone, and every program of it: what they waited for and held goes."""
        for pending in self._waiting.values():
            pending.cancel()
        for number in list(self._files):
            self._forget(number).release()
        self._channel.close()

    def install(self, file: OpenFile, flags: int) -> int:
        """Give a file to the caller of the request in progress."""
        fresh = file not in self._numbers
        number = self._add(file)
        try:
            packet, fd = self._describe(Kind.INSTALL, number, flags)
            descriptor = self.ask(packet, fd).numbers[0]
        except OSError:
            if fresh:
                self._forget(number)
            raise
        if fresh:
            file.installed()
            if isinstance(file.stand_in, SignalStandIn):
                self._tell_of(number, file.stand_in.completion)
        return descriptor

    def lookup(self, number: int) -> OpenFile | None:
        return self._files.get(number)

    def _file(self, request: Packet) -> OpenFile:
        return self._files[request.numbers[0]]

    def _add(self, file: OpenFile) -> int:
        number = self._numbers.get(file)
        if number is None:
            number = self._numbers[file] = self._next_file
            self._next_file += 1
            self._files[number] = file
        return number

    def _tell_of(self, number: int, completion: Completion) -> None:
        happened = functools.partial(self.send, pack(Kind.HAPPENED, number))
        if completion.add_callback(happened):
            self._happened[number] = happened
        else:
            happened()

    def _forget(self, number: int) -> OpenFile:
        file = self._files.pop(number)
        del self._numbers[file]
        happened = self._happened.pop(number, None)
        if happened is not None and isinstance(file.stand_in, SignalStandIn):
            file.stand_in.completion.remove_callback(happened)
        return file

    def _describe(self, kind: Kind, number: int, flags: int) -> tuple[bytes, int | None]:
        """Packet FILE of a kind, and the descriptor that goes with it."""
        file = self._files[number]
        stand_in = file.stand_in
        fd, size = None, 0
        match stand_in:
            case NodeStandIn():
                held, fd = Held.NODE, stand_in.fd
                self._anchors.hold(fd)
            case PagesStandIn():
                held, fd, size = Held.PAGES, stand_in.fd, stand_in.size
            case TokenStandIn():
                held, size = Held.TOKEN, stand_in.size
            case SignalStandIn():
                held = Held.SIGNAL
        return pack(kind, number, file.client_id, held, size, flags, data=file.link.encode()), fd

    def _open(self, request: Packet) -> tuple[bytes, int | None]:
        index, flags, pid, sys_admin = request.numbers[:4]
        caller = Caller(pid, lambda: bool(sys_admin), _CallerMemory(self), _CallerFiles(self))
        file = self._machine.open(self._machine.nodes[index], flags, caller)
        self.clients.add(file.client_id)
        return self._describe(Kind.ANSWER, self._add(file), 0)

    def _ioctl(self, request: Packet) -> bytes:
        _, what, address, pid, ticket = request.numbers[:5]
        result = self._file(request).ioctl(unsigned(what), unsigned(address), self._caller(pid))
        if not isinstance(result, Pending):
            return pack(Kind.ANSWER, result)
        return pack(Kind.ANSWER, result.finish()) if result.done else self._wait(result, ticket)

    def _caller(self, pid: int) -> Caller:
        """Who makes the request in progress."""
        sys_admin = lambda: bool(self.ask(pack(Kind.RIGHTS)).numbers[0])  # noqa: E731
        return Caller(pid, sys_admin, _CallerMemory(self), _CallerFiles(self))

    def _read(self, request: Packet) -> bytes:
        _, size, nonblocking, ticket = request.numbers[:4]
        while isinstance(data := self._file(request).read(size, bool(nonblocking)), Pending):
            if not data.done:
                return self._wait(data, ticket)
            data.finish()
        return pack(Kind.ANSWER, data=data)

    def _wait(self, pending: Pending, ticket: int) -> bytes:
        self._waiting[ticket] = pending
        pending.on_done(lambda: self.send(pack(Kind.OVER, ticket)))
        deadline = -1 if pending.deadline is None else pending.deadline
        return pack(Kind.WAITS, deadline, int(pending.deadline is None), pending.timeout_errno)

    def _changes(self, request: Packet) -> bytes:
        number, ticket = request.numbers[:2]
        completion = self._files[number].poll_changes()
        if completion is None:
            return pack(Kind.ANSWER, 0)
        over = functools.partial(self.send, pack(Kind.OVER, ticket))
        if not completion.add_callback(over):
            over()
        return pack(Kind.ANSWER, 1)

    def _finish(self, request: Packet) -> bytes:
        ticket, error = request.numbers[:2]
        pending = self._waiting.pop(ticket)
        if error:
            pending.cancel(error)
        return pack(Kind.ANSWER, pending.finish())

    def _mmap(self, request: Packet) -> tuple[bytes, int]:
        _, length, prot, flags, offset, pid = request.numbers
        backing = self._file(request).mmap(unsigned(length), prot, flags, unsigned(offset), self._caller(pid))
        return pack(Kind.ANSWER, backing.offset, int(backing.writable)), backing.fd

    def _forgotten(self, request: Packet) -> bytes:
        file = self._file(request)
        ranges = file.forgotten() if isinstance(file, Mapped) else ()
        flat = b"".join(part.to_bytes(8, "little") for pair in ranges for part in pair)
        return pack(Kind.ANSWER, data=flat[: rpc.LARGEST & ~15])

    def _unmapped(self, request: Packet) -> bytes:
        file = self._file(request)
        if isinstance(file, Mapped):
            file.unmapped(request.numbers[1])
        return pack(Kind.ANSWER)

    def _close(self, request: Packet) -> bytes:
        self._forget(request.numbers[0]).release()
        return pack(Kind.ANSWER)


class _CallerFiles:
    """`Descriptors` of whoever made the request in progress: the launch has them."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def install(self, file: OpenFile, flags: int) -> int:
        return self._connection.install(file, flags)

    def lookup(self, fd: int) -> OpenFile | None:
        return self._connection.lookup(self._connection.ask(pack(Kind.LOOKUP, fd)).numbers[0])

    def duplicate(self, fd: int) -> int:
        copy = self._connection.ask(pack(Kind.DUPLICATE, fd)).fd
        if copy is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return copy


class _CallerMemory:
    """User memory of whoever made the request in progress: the launch copies."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def read(self, address: int, size: int) -> bytes:
        pieces = []
        for start in range(0, size, rpc.LARGEST):
            piece = min(rpc.LARGEST, size - start)
            pieces.append(self._connection.ask(pack(Kind.READ, address + start, piece, size)).data)
        return b"".join(pieces)

    def write(self, address: int, data: bytes) -> None:
        for start in range(0, len(data), rpc.LARGEST):
            piece = data[start : start + rpc.LARGEST]
            self._connection.ask(pack(Kind.WRITE, address + start, data=piece))
