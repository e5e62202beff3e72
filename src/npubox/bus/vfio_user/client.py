# SPDX-License-Identifier: Apache-2.0
"""A PCI function behind a vfio-user socket, as a driver's port (facts, vfio-user.md §2)."""

from __future__ import annotations

import errno
import itertools
import os
import select
import socket
import threading
from collections.abc import Callable, Mapping

from npubox.bus.host_clock import HostClock
from npubox.bus.port import BarArea, BarInfo, Prot
from npubox.bus.ranges import MappedRanges
from npubox.bus.vfio_user import protocol
from npubox.bus.vfio_user.channel import Channel, Message, ProtocolError
from npubox.bus.vfio_user.config_space import SIZE as CONFIG_SIZE
from npubox.bus.vfio_user.config_space import identity_of
from npubox.bus.vfio_user.protocol import Command, DmaFlag, Flag, Irq, IrqFlag, Region, RegionFlag
from npubox.bus.virtual import no_word

_GONE = "the device's server is gone"
# Plain numbers, for what every register access passes: enums are slow
_READ, _WRITE = int(Command.REGION_READ), int(Command.REGION_WRITE)
_REGISTER_READ, _READ_SIZE = protocol.REGISTER_READ.pack, protocol.REGISTER_READ.size
_REGISTER_REPLY, _VALUE_SIZE = protocol.REGISTER_REPLY.unpack, protocol.REGISTER_REPLY.size
_REPLY = protocol.REPLY_TYPE
_NO_REPLY, _ERROR = int(Flag.NO_REPLY), int(Flag.ERROR)


class _Link:
    """Requests and their replies, one at a time; any thread."""

    def __init__(self, connection: socket.socket) -> None:
        self.channel = Channel(connection)
        self._lock = threading.Lock()
        self._numbers = itertools.cycle(range(1 << 16))

    def ask(self, command: int, payload: bytes = b"", fds: tuple[int, ...] = ()) -> Message:
        """OSError with the server's errno, ENODEV if it is gone."""
        with self._lock:
            number = next(self._numbers)
            try:
                self.channel.send(number, command, 0, payload, fds)
            except OSError as error:
                raise OSError(errno.ENODEV, _GONE) from error
            return self._await(command, number)

    def _await(self, command: int, number: int) -> Message:
        try:
            while (reply := self.channel.receive()) is not None:
                if reply.is_reply and reply.number == number:
                    break
                self._refuse(reply)
        except (OSError, ProtocolError) as error:
            raise OSError(errno.ENODEV, _GONE) from error
        if reply is None:
            raise OSError(errno.ENODEV, _GONE)
        if reply.flags & _ERROR:
            reply.close_fds()
            raise OSError(reply.errno, f"vfio-user command {command}: {os.strerror(reply.errno)}")
        return reply

    def read_word(self, region: int, offset: int) -> int:
        """As `ask` for a 32-bit register, without the detours that any other message takes."""
        with self._lock:
            number = next(self._numbers)
            request = _REGISTER_READ(number, _READ, _READ_SIZE, 0, 0, offset, region, 4)
            try:
                data = self.channel.exchange(request)
            except OSError as error:
                raise OSError(errno.ENODEV, _GONE) from error
            if len(data) == _VALUE_SIZE:
                answered, size, flags, value = _REGISTER_REPLY(data)
                if answered == number and size == _VALUE_SIZE and flags == _REPLY:
                    self.channel.finish(_VALUE_SIZE)
                    return value  # type: ignore[no-any-return]
            self.channel.push_back(data)
            return int.from_bytes(self._await(_READ, number).payload[-4:], "little")

    def post(self, command: int, payload: bytes) -> None:
        """Send a command that is not answered. OSError ENODEV if the server is gone."""
        with self._lock:
            try:
                self.channel.send(next(self._numbers), command, _NO_REPLY, payload)
            except OSError as error:
                raise OSError(errno.ENODEV, _GONE) from error

    def _refuse(self, message: Message) -> None:
        """Commands of the server's: its device reaches memory through descriptors, not through us."""
        message.close_fds()
        if not message.is_reply:
            self.channel.send(
                message.number,
                message.command,
                protocol.REPLY_TYPE | Flag.ERROR,
                errno=errno.ENOTSUP,
            )


class _Dma:
    """The device's address space, kept by the server; it is coherent."""

    def __init__(self, link: _Link) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._ranges = MappedRanges()

    def map(self, address: int, fd: int, offset: int, size: int, prot: Prot) -> None:
        with self._lock:
            self._ranges.add(address, offset, size)
            flags = prot & (DmaFlag.READABLE | DmaFlag.WRITABLE)
            layout = protocol.DMA_MAP
            try:
                self._link.ask(Command.DMA_MAP, layout.pack(layout.size, flags, offset, address, size), (fd,))
            except OSError:
                self._ranges.remove(address, size)
                raise

    def unmap(self, address: int, size: int) -> None:
        with self._lock:
            self._ranges.remove(address, size)
            layout = protocol.DMA_UNMAP
            try:
                self._link.ask(Command.DMA_UNMAP, layout.pack(layout.size, 0, address, size))
            except OSError as error:
                if error.errno != errno.ENODEV:  # a server that is gone reaches nothing any more
                    raise

    def sync_for_device(self, address: int, size: int) -> None:
        with self._lock:
            self._ranges.check(address, size)

    def sync_for_cpu(self, address: int, size: int) -> None:
        self.sync_for_device(address, size)


class VfioUserDevice:
    """A `PciDevice`. Register writes are posted, reads wait; memory areas are mapped from their descriptors.

    Time is the host's. `close` disconnects, upon which the server resets the device.
    """

    def __init__(self, path: str, address: str) -> None:
        """Connect to the socket at `path`; `address` is where the function shall be said to be.

        OSError as connect(2) fails, EPROTO for a server that does not serve a PCI function.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(path)
        except OSError as error:
            connection.close()
            raise OSError(error.errno, f"{path}: {error.strerror}") from None
        self._link = _Link(connection)
        self._interrupts: _Interrupts | None = None
        self._fds: list[int] = []
        self.clock = HostClock()
        self.dma = _Dma(self._link)
        try:
            self._link.ask(Command.VERSION, protocol.VERSION.pack(protocol.MAJOR, protocol.MINOR))
            self.bars: Mapping[int, BarInfo] = self._read_bars()
            self._last_words = {bar: info.size - 4 for bar, info in self.bars.items()}
            self.identity = identity_of(self._read_config(), address)
            self.vectors = self._read_vectors()
        except BaseException:
            self.close()
            raise

    def read32(self, bar: int, offset: int) -> int:
        if offset & 3 or not 0 <= offset <= self._last_words.get(bar, -1):
            raise no_word(bar, offset)
        return self._link.read_word(bar, offset)

    def write32(self, bar: int, offset: int, value: int) -> None:
        if offset & 3 or not 0 <= offset <= self._last_words.get(bar, -1):
            raise no_word(bar, offset)
        data = (value & 0xFFFFFFFF).to_bytes(4, "little")
        self._link.post(_WRITE, protocol.REGION_ACCESS.pack(offset, bar, 4) + data)

    def on_interrupt(self, vector: int, handler: Callable[[], None] | None) -> None:
        if not 0 <= vector < self.vectors:
            raise OSError(errno.EINVAL, f"the device has no interrupt vector {vector}")
        if self._interrupts is None:
            self._interrupts = _Interrupts()
        eventfd = self._interrupts.connect(vector, handler)
        flags = IrqFlag.DATA_EVENTFD | IrqFlag.TRIGGER
        request = protocol.SET_IRQS.pack(protocol.SET_IRQS.size, flags, Irq.MSIX, vector, 1)
        self._link.ask(Command.DEVICE_SET_IRQS, request, (eventfd,) if eventfd is not None else ())

    def lend(self) -> bool:
        """The device works elsewhere."""
        return False

    def reset(self) -> None:
        self._link.ask(Command.DEVICE_RESET)

    def close(self) -> None:
        self._link.channel.close()
        if self._interrupts is not None:
            self._interrupts.close()
        self.clock.close()
        while self._fds:
            os.close(self._fds.pop())

    def _read_bars(self) -> dict[int, BarInfo]:
        found = {}
        for bar in range(protocol.BARS):
            info = self._read_bar(bar)
            if info.size:
                found[bar] = info
        return found

    def _read_bar(self, bar: int) -> BarInfo:
        layout = protocol.REGION_INFO
        argsz = layout.size
        while True:
            reply = self._link.ask(Command.DEVICE_GET_REGION_INFO, layout.pack(argsz, 0, bar, 0, 0, 0))
            self._fds += reply.fds
            if len(reply.payload) < layout.size:
                raise OSError(errno.EPROTO, f"the server says too little of BAR {bar}")
            needed, flags, _, capabilities, size, offset = layout.unpack_from(reply.payload)
            if needed <= argsz:
                break
            argsz = needed
        if not flags & RegionFlag.MMAP or not reply.fds:
            return BarInfo(size)
        fd = reply.fds[0]
        areas = _sparse_areas(reply.payload, capabilities) if flags & RegionFlag.CAPABILITIES else [(0, size)]
        return BarInfo(size, tuple(BarArea(start, length, fd, offset + start) for start, length in areas))

    def _read_config(self) -> bytes:
        request = protocol.REGION_ACCESS.pack(0, Region.CONFIG, CONFIG_SIZE)
        payload = self._link.ask(Command.REGION_READ, request).payload
        return payload[protocol.REGION_ACCESS.size :]

    def _read_vectors(self) -> int:
        request = protocol.IRQ_INFO.pack(protocol.IRQ_INFO.size, 0, Irq.MSIX, 0)
        payload = self._link.ask(Command.DEVICE_GET_IRQ_INFO, request).payload
        return int(protocol.IRQ_INFO.unpack_from(payload)[3])


class _Interrupts:
    """Eventfds of interrupt vectors, and the thread that calls their handlers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._eventfds: dict[int, int] = {}
        self._poll = select.epoll()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._poll.register(self._stop, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="npubox-vfio-user-irq", daemon=True)
        self._thread.start()

    def connect(self, vector: int, handler: Callable[[], None] | None) -> int | None:
        """The eventfd for a vector, None when it is taken away."""
        with self._lock:
            before = self._eventfds.pop(vector, None)
            if before is not None:
                self._poll.unregister(before)
                self._handlers.pop(before)
                os.close(before)
            if handler is None:
                return None
            eventfd = self._eventfds[vector] = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._handlers[eventfd] = handler
            self._poll.register(eventfd, select.EPOLLIN)
            return eventfd

    def close(self) -> None:
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        self._poll.close()
        for fd in (self._stop, *self._eventfds.values()):
            os.close(fd)

    def _run(self) -> None:
        while True:
            for fd, _ in self._poll.poll():
                if fd == self._stop:
                    return
                with self._lock:
                    handler = self._handlers.get(fd)
                    times = os.eventfd_read(fd) if handler is not None else 0
                if handler is not None and times:
                    handler()


def _sparse_areas(payload: bytes, at: int) -> list[tuple[int, int]]:
    """Start and size of the areas that the sparse-mmap capability lists."""
    while at:
        kind, _, following = protocol.CAPABILITY.unpack_from(payload, at)
        if kind == protocol.SPARSE_MMAP:
            at += protocol.CAPABILITY.size
            count, _ = protocol.SPARSE_HEAD.unpack_from(payload, at)
            at += protocol.SPARSE_HEAD.size
            return [
                protocol.SPARSE_AREA.unpack_from(payload, at + number * protocol.SPARSE_AREA.size)
                for number in range(count)
            ]
        at = following
    return []
