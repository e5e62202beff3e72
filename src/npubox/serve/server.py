# SPDX-License-Identifier: Apache-2.0
"""`npubox serve`: a machine that outlives programs. Launches connect, each served by a thread here."""

from __future__ import annotations

import errno
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
from npubox.core.pending import Pending
from npubox.serve import rpc
from npubox.serve.machine import OpenFile, ServedMachine
from npubox.serve.rpc import Kind, Packet, pack, unsigned

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

    def __init__(self, machine: ServedMachine, stores: list[str]) -> None:
        """`stores` are paths by which each node's store can be linked, in the order of the nodes."""
        self._machine = machine
        self._stores = stores
        self._guard = threading.Lock()
        self._connections: set[_Connection] = set()
        machine.job_watcher = self._job

    def run(self, listener: socket.socket) -> None:
        while True:
            try:
                channel, _ = listener.accept()
            except OSError:
                return
            connection = _Connection(channel, self._machine, self._hello())
            with self._guard:
                self._connections.add(connection)
            threading.Thread(
                target=self._serve, args=(connection,), name="npubox-launch", daemon=True
            ).start()

    def _serve(self, connection: _Connection) -> None:
        try:
            connection.run()
        except Exception:
            _log.exception("serving a launch failed")
        finally:
            with self._guard:
                self._connections.discard(connection)
            connection.close()

    def _hello(self) -> tuple[bytes, list[int]]:
        nodes = self._machine.nodes
        places = [self._machine.store(node) for node in nodes]
        about = {
            "processes": sorted(self._machine.processes),
            "nodes": [asdict(node) for node in nodes],
            "sources": self._stores,
            "directories": [place.directory for place in places],
        }
        return json.dumps(about).encode(), [place.fd for place in places]

    def _job(self, client_id: int, sequence: int, error: int, report: Any) -> None:
        data = b"" if report is None else json.dumps(asdict(report)).encode()
        packet = pack(Kind.JOB, client_id, sequence, error, data=data)
        with self._guard:
            connections = list(self._connections)
        for connection in connections:
            if client_id in connection.clients:
                connection.send(packet)


class _Connection:
    """One launch. Requests come one after the other; only `send` may be called by other threads."""

    def __init__(
        self, channel: socket.socket, machine: ServedMachine, hello: tuple[bytes, list[int]]
    ) -> None:
        self._channel = channel
        self._machine = machine
        self._hello = hello
        self._sending = threading.Lock()
        self._files: dict[int, OpenFile] = {}
        self._waiting: dict[int, Pending] = {}
        self._next_file = 1
        self.clients: set[int] = set()
        self._requests: dict[int, Callable[[Packet], bytes]] = {
            Kind.OPEN: self._open,
            Kind.IOCTL: self._ioctl,
            Kind.MMAP: self._mmap,
            Kind.FORGOTTEN: self._forgotten,
            Kind.UNMAPPED: self._unmapped,
            Kind.CLOSE: self._close,
            Kind.FINISH: self._finish,
        }

    def send(self, packet: bytes) -> None:
        try:
            with self._sending:
                self._channel.sendall(packet)
        except OSError:
            pass  # the launch is gone, and `run` ends

    def ask(self, packet: bytes) -> Packet:
        """Ask the launch about the caller of the request in progress. OSError with its errno."""
        self.send(packet)
        answer = rpc.receive(self._channel)
        if answer is None or answer.kind != Kind.REPLY:
            raise OSError(errno.ESRCH, "the launch is gone")
        if answer.error:
            raise OSError(answer.error, os.strerror(answer.error))
        return answer

    def run(self) -> None:
        data, stores = self._hello
        socket.send_fds(self._channel, [pack(Kind.HELLO, data=data)], stores)
        while (request := rpc.receive(self._channel)) is not None:
            try:
                answer = self._requests[request.kind](request)
            except OSError as error:
                answer = pack(Kind.ANSWER, error=error.errno or errno.EIO)
            except Exception:
                _log.exception("a call failed in the machine server")
                answer = pack(Kind.ANSWER, error=errno.EIO)
            self.send(answer)

    def close(self) -> None:
        """The launch is gone, and every program of it: what they waited for and held goes."""
        for pending in self._waiting.values():
            pending.cancel()
        for file in self._files.values():
            file.close()
        self._channel.close()

    def _open(self, request: Packet) -> bytes:
        index, flags, pid, sys_admin = request.numbers[:4]
        caller = Caller(pid, lambda: bool(sys_admin), _CallerMemory(self))
        file = self._machine.open(self._machine.nodes[index], flags, caller)
        number = self._next_file
        self._next_file += 1
        self._files[number] = file
        self.clients.add(file.client_id)
        return pack(Kind.ANSWER, number, file.client_id)

    def _ioctl(self, request: Packet) -> bytes:
        number, what, address, pid, ticket = request.numbers[:5]
        caller = Caller(pid, lambda: bool(self.ask(pack(Kind.RIGHTS)).numbers[0]), _CallerMemory(self))
        result = self._files[number].ioctl(unsigned(what), unsigned(address), caller)
        if not isinstance(result, Pending):
            return pack(Kind.ANSWER, result)
        if result.done:
            return pack(Kind.ANSWER, result.finish())
        self._waiting[ticket] = result
        result.on_done(lambda: self.send(pack(Kind.OVER, ticket)))
        deadline = -1 if result.deadline is None else result.deadline
        return pack(Kind.WAITS, deadline, int(result.deadline is None), result.timeout_errno)

    def _finish(self, request: Packet) -> bytes:
        ticket, error = request.numbers[:2]
        pending = self._waiting.pop(ticket)
        if error:
            pending.cancel(error)
        return pack(Kind.ANSWER, pending.finish())

    def _mmap(self, request: Packet) -> bytes:
        number, length, prot, flags, offset = request.numbers[:5]
        self._files[number].mmap(unsigned(length), prot, flags, unsigned(offset))
        return pack(Kind.ANSWER)

    def _forgotten(self, request: Packet) -> bytes:
        ranges = self._files[request.numbers[0]].forgotten()
        flat = b"".join(part.to_bytes(8, "little") for pair in ranges for part in pair)
        return pack(Kind.ANSWER, data=flat[: rpc.LARGEST & ~15])

    def _unmapped(self, request: Packet) -> bytes:
        self._files[request.numbers[0]].unmapped(request.numbers[1])
        return pack(Kind.ANSWER)

    def _close(self, request: Packet) -> bytes:
        self._files.pop(request.numbers[0]).close()
        return pack(Kind.ANSWER)


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
