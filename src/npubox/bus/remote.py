# SPDX-License-Identifier: Apache-2.0
"""The lower waist to a device in another process: the driver's end.

Whatever a busy device could delay is sent without waiting for an answer: register writes, DMA mappings
(their rules are checked here) and timers. Only register reads, cache maintenance and sleeps wait; what was
sent before has happened when they return. The device's time is read from a page that it writes. When the
device's process dies, `lost` is called once and reads raise OSError ENODEV.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import mmap
import os
import queue
import socket
import threading
from collections import deque
from collections.abc import Callable

from npubox.bus import wire
from npubox.bus.port import Prot
from npubox.bus.ranges import MappedRanges
from npubox.bus.wire import Kind

_log = logging.getLogger(__name__)


class RemoteLink:
    """The socket to the device's process, its reader, and the thread that callbacks run on."""

    def __init__(self, channel: socket.socket, report: Callable[[bytes], None]) -> None:
        self._channel = channel
        self._report = report
        self._guard = threading.Lock()
        self._backlog: deque[tuple[bytes, int | None]] = deque()
        self._room = threading.Condition(self._guard)
        self._tickets = itertools.count(1)
        self._replies: dict[int, queue.SimpleQueue[int | None]] = {}
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lost: Callable[[], None] | None = None
        self._gone = False
        self.interrupts: dict[int, Callable[[], None]] = {}
        self.timers: dict[int, Callable[[], None]] = {}
        for name, target in (("read", self._read), ("work", self._run), ("write", self._flush)):
            threading.Thread(target=target, name=f"npubox-device-{name}", daemon=True).start()

    def on_lost(self, lost: Callable[[], None]) -> None:
        """Call `lost`, on a thread of ours, when the device's process is gone."""
        with self._guard:
            self._lost = lost
            gone = self._gone
        if gone:
            self._work.put(lost)

    def post(self, packet: bytes, fd: int | None = None) -> None:
        """Send without waiting, in order. Nothing happens once the device is gone."""
        with self._guard:
            if self._gone:
                return
            if not self._backlog:
                try:
                    wire.send(self._channel, packet, fd, socket.MSG_DONTWAIT)
                    return
                except BlockingIOError:
                    pass
                except OSError:
                    return  # the reader finds out
            self._backlog.append((packet, None if fd is None else os.dup(fd)))
            self._room.notify()

    def ask(self, kind: Kind, *numbers: int) -> int:
        """Send a message that is answered, and wait. OSError ENODEV if the device is gone."""
        ticket = next(self._tickets)
        reply: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        with self._guard:
            if not self._gone:
                self._replies[ticket] = reply
            else:
                reply.put(None)
        self.post(wire.pack(kind, ticket, *numbers))
        value = reply.get()
        if value is None:
            raise OSError(errno.ENODEV, "the device's process has died")
        return value

    def close(self) -> None:
        with self._guard:
            self._lost = None
        self._channel.close() if self._gone else self._channel.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        while (message := wire.receive(self._channel)) is not None:
            number, value, _, _ = message.numbers
            if message.kind == Kind.REPLY:
                with self._guard:
                    reply = self._replies.pop(number, None)
                if reply is not None:
                    reply.put(value)
            elif message.kind == Kind.INTERRUPT:
                handler = self.interrupts.get(number)
                if handler is not None:
                    self._work.put(handler)
            elif message.kind == Kind.FIRED:
                callback = self.timers.pop(number, None)
                if callback is not None:
                    self._work.put(callback)
            elif message.kind == Kind.REPORT:
                self._report(message.data)
        self._lose()

    def _lose(self) -> None:
        with self._guard:
            self._gone = True
            replies, self._replies = self._replies, {}
            lost = self._lost
            self._room.notify()
        for reply in replies.values():
            reply.put(None)
        if lost is not None:
            self._work.put(lost)
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except Exception:
                _log.exception("an interrupt or timer of a device failed")

    def _flush(self) -> None:
        while True:
            with self._guard:
                while not self._backlog and not self._gone:
                    self._room.wait()
                if self._gone:
                    for _, unsent in self._backlog:
                        if unsent is not None:
                            os.close(unsent)
                    self._backlog.clear()
                    return
                packet, fd = self._backlog[0]
            with contextlib.suppress(OSError):  # the reader finds out
                wire.send(self._channel, packet, fd)
            if fd is not None:
                os.close(fd)
            with self._guard:
                self._backlog.popleft()


class RemoteTimer:
    def __init__(self, link: RemoteLink, number: int) -> None:
        self._link = link
        self._number = number

    def cancel(self) -> None:
        if self._link.timers.pop(self._number, None) is not None:
            self._link.post(wire.pack(Kind.CANCEL, self._number))


class RemoteClock:
    """The device's time."""

    def __init__(self, link: RemoteLink) -> None:
        self._link = link
        self._numbers = itertools.count(1)
        fd = os.memfd_create("npubox-clock", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, mmap.PAGESIZE)
            self._page = memoryview(mmap.mmap(fd, mmap.PAGESIZE)).cast("Q")
            link.post(wire.pack(Kind.CLOCK), fd)
        finally:
            os.close(fd)

    def now(self) -> int:
        return self._page[0]

    def call_at(self, deadline: int, callback: Callable[[], None]) -> RemoteTimer:
        number = next(self._numbers)
        self._link.timers[number] = callback
        self._link.post(wire.pack(Kind.ARM, number, deadline))
        return RemoteTimer(self._link, number)

    def sleep(self, duration: int) -> None:
        self._link.ask(Kind.SLEEP, duration)


class RemoteDma:
    """The device's address space: checked here, mapped there."""

    def __init__(self, link: RemoteLink) -> None:
        self._link = link
        self._guard = threading.Lock()
        self._ranges = MappedRanges()

    def map(self, address: int, fd: int, offset: int, size: int, prot: Prot) -> None:
        with self._guard:
            self._ranges.add(address, offset, size)
            self._link.post(wire.pack(Kind.MAP, address, offset, size, int(prot)), fd)

    def unmap(self, address: int, size: int) -> None:
        with self._guard:
            self._ranges.remove(address, size)
            self._link.post(wire.pack(Kind.UNMAP, address, size))

    def sync_for_device(self, address: int, size: int) -> None:
        with self._guard:
            self._ranges.check(address, size)
        self._link.ask(Kind.SYNC_DEVICE, address, size)

    def sync_for_cpu(self, address: int, size: int) -> None:
        with self._guard:
            self._ranges.check(address, size)
        self._link.ask(Kind.SYNC_CPU, address, size)


class RemotePort:
    """A `Port` whose device lives in another process."""

    def __init__(self, link: RemoteLink) -> None:
        self._link = link
        self.clock = RemoteClock(link)
        self.dma = RemoteDma(link)

    def read32(self, offset: int) -> int:
        return self._link.ask(Kind.READ, offset)

    def write32(self, offset: int, value: int) -> None:
        self._link.post(wire.pack(Kind.WRITE, offset, value & 0xFFFF_FFFF))

    def on_interrupt(self, index: int, handler: Callable[[], None] | None) -> None:
        if handler is None:
            self._link.interrupts.pop(index, None)
        else:
            self._link.interrupts[index] = handler

    def lend(self, deadline: int | None) -> bool:
        """A device in another process has no use for a thread of this one."""
        return False
