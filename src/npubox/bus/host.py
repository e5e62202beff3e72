# SPDX-License-Identifier: Apache-2.0
"""The lower waist to a driver in another process: the device's end."""

from __future__ import annotations

import logging
import mmap
import os
import socket
import threading
from collections.abc import Callable
from typing import Protocol

from npubox.bus import wire
from npubox.bus.port import Prot
from npubox.bus.virtual import AddressSpace, RegisterDevice, VirtualClock
from npubox.bus.wire import Kind, Message

_log = logging.getLogger(__name__)


class _Timer(Protocol):
    def cancel(self) -> None: ...


class DeviceHost:
    """Carries a virtual device's registers, DMA, timers and interrupts over a socket.

    Make it first: `clock` and `interrupt` are what the device is built with. `run` serves until the
    driver's end closes.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._sending = threading.Lock()
        self._page: memoryview | None = None
        self._timers: dict[int, _Timer] = {}
        self.clock = VirtualClock(self._publish)

    def interrupt(self, index: int = 0) -> None:
        """The device raises its interrupt."""
        self._send(wire.pack(Kind.INTERRUPT, index))

    def report(self, data: bytes) -> None:
        """Something for the machine's control channel."""
        self._send(wire.pack(Kind.REPORT, data=data))

    def run(self, device: RegisterDevice, dma: AddressSpace, order: Callable[[bytes], None]) -> None:
        while (message := wire.receive(self._channel)) is not None:
            try:
                self._handle(message, device, dma, order)
            except Exception:
                _log.exception("message %s of a driver failed", message.kind)
            finally:
                if message.fd is not None:
                    os.close(message.fd)

    def _handle(
        self, message: Message, device: RegisterDevice, dma: AddressSpace, order: Callable[[bytes], None]
    ) -> None:
        a, b, c, d = message.numbers
        match message.kind:
            case Kind.WRITE:
                device.write32(a, b)
            case Kind.READ:
                self._send(wire.pack(Kind.REPLY, a, device.read32(b)))
            case Kind.MAP:
                assert message.fd is not None
                dma.map(a, message.fd, b, c, Prot(d))
            case Kind.UNMAP:
                dma.unmap(a, b)
            case Kind.SYNC_DEVICE | Kind.SYNC_CPU:
                try:
                    sync = dma.sync_for_cpu if message.kind == Kind.SYNC_CPU else dma.sync_for_device
                    sync(b, c)
                finally:
                    self._send(wire.pack(Kind.REPLY, a, 0))
            case Kind.ARM:
                self._timers[a] = self.clock.call_at(b, lambda: self._fire(a))
            case Kind.CANCEL:
                timer = self._timers.pop(a, None)
                if timer is not None:
                    timer.cancel()
            case Kind.SLEEP:
                threading.Thread(target=self._sleep, args=(a, b), daemon=True).start()
            case Kind.ORDER:
                order(message.data)
            case Kind.CLOCK:
                assert message.fd is not None
                self._page = memoryview(mmap.mmap(message.fd, mmap.PAGESIZE)).cast("Q")

    def _sleep(self, ticket: int, duration: int) -> None:
        self.clock.sleep(duration)
        self._send(wire.pack(Kind.REPLY, ticket, 0))

    def _fire(self, number: int) -> None:
        self._timers.pop(number, None)
        self._send(wire.pack(Kind.FIRED, number))

    def _publish(self, now: int) -> None:
        if self._page is not None:
            self._page[0] = now

    def _send(self, packet: bytes) -> None:
        try:
            with self._sending:
                wire.send(self._channel, packet)
        except OSError:
            pass  # the driver is gone, and `run` ends
