# SPDX-License-Identifier: Apache-2.0
"""The mailbox: messages through two rings in shared memory, and a doorbell each way.

The host's end of the rings is uncached, so nothing is flushed here. Source: the project's facts
(ethosu-linux.md §2.1, §2.2, §2.4).
"""

from __future__ import annotations

import ctypes
import errno
import logging
import mmap
from collections.abc import Callable, Iterator

from npubox.bus.port import MemoryPool, PlatformDevice
from npubox.hw.ethosu import core_interface as core
from npubox.hw.ethosu.mailbox import Doorbell, MailboxReg

_log = logging.getLogger(__name__)
HEADER_BYTES = ctypes.sizeof(core.Message)
LONGEST_PAYLOAD = max(ctypes.sizeof(payload) for payload in core.PAYLOADS.values())

QueueHeader = type[core.QueueHeader] | type[core.QueueHeaderShort]

MessageObserver = Callable[[bool, core.MessageType, ctypes.LittleEndianStructure], None]
"""(sent or received, type, payload) of each message that is none of the bad. It must not block."""


class BadMessage(Exception):  # noqa: N818 - it is the message that is bad
    """What lies in a ring is no message."""


class Ring:
    """One byte ring. Its header's words are whatever the other end made of them: nothing is believed."""

    def __init__(self, pool: MemoryPool, header: QueueHeader) -> None:
        self._memory = mmap.mmap(pool.fd, pool.size, offset=pool.offset)
        self.header = header.from_buffer(self._memory)
        self._data = memoryview(self._memory)[ctypes.sizeof(header) :]

    @property
    def usable(self) -> bool:
        """Whether the header describes a ring."""
        size: int = self.header.size
        return size <= len(self._data) and max(self.header.read, self.header.write) < size

    @property
    def available(self) -> int:
        """Bytes that wait for the reader; 0 for a ring that is not usable."""
        return (self.header.write - self.header.read) % self.header.size if self.usable else 0

    def put(self, data: bytes) -> None:
        """OSError EINVAL where it does not fit: one byte always stays free."""
        if not self.usable or self.available + len(data) >= self.header.size:
            raise OSError(errno.EINVAL, f"the subsystem's message queue has no room for {len(data)} bytes")
        start, size = self.header.write, self.header.size
        first = min(len(data), size - start)
        self._data[start : start + first] = data[:first]
        self._data[: len(data) - first] = data[first:]
        self.header.write = (start + len(data)) % size

    def take(self, count: int) -> bytes:
        """Raises BadMessage where there are fewer bytes."""
        if self.available < count:
            raise BadMessage(f"{self.available} bytes instead of {count}")
        start, size = self.header.read, self.header.size
        first = min(count, size - start)
        data = bytes(self._data[start : start + first]) + bytes(self._data[: count - first])
        self.header.read = (start + count) % size
        return data

    def skip(self) -> None:
        """Drop everything in it."""
        self.header.read = self.header.write

    def close(self) -> None:
        del self.header
        self._data.release()
        self._memory.close()


class Mailbox:
    """Both rings of a subsystem. Raises OSError EINVAL for a platform that has none."""

    def __init__(self, platform: PlatformDevice, header: QueueHeader) -> None:
        missing = {"in_queue", "out_queue"} - set(platform.memory)
        if missing:
            raise OSError(errno.EINVAL, f"{platform.name}: the device tree's reg lists no {min(missing)}")
        self.observer: MessageObserver | None = None
        self._port = platform.port
        self._in = Ring(platform.memory["in_queue"], header)
        self._out = Ring(platform.memory["out_queue"], header)

    def connect(self, received: Callable[[], None]) -> None:
        """Have `received` called, on the port's thread, when the firmware rings."""

        def interrupt() -> None:
            self._port.write32(MailboxReg.RX_CLR, Doorbell.RING)
            received()

        self._port.on_interrupt(0, interrupt)

    def reset(self) -> None:
        """Mark in_queue so that `booted` can tell when the firmware has made it anew."""
        self._in.header.size = 0
        self._in.header.read = self._in.header.write = core.QUEUE_RESET_INDEX

    @property
    def booted(self) -> bool:
        header = self._in.header
        return bool(header.size) and core.QUEUE_RESET_INDEX not in (header.read, header.write)

    def push_mappings(self) -> None:
        """Have mappings reach the device before a message about them, which it may read before the
        doorbell: a register read pushes what was posted. OSError ENODEV when the device is gone."""
        self._port.read32(MailboxReg.TX_STAT)

    def send(self, kind: core.MessageType, payload: ctypes.LittleEndianStructure) -> None:
        """Put a message into in_queue and ring; OSError EINVAL where there is no room."""
        head = core.Message(core.MAGIC, kind, ctypes.sizeof(payload))
        self._in.put(bytes(head) + bytes(payload))
        if self.observer is not None:
            self.observer(True, kind, payload)
        self._port.write32(MailboxReg.TX_SET, Doorbell.RING)

    def receive(self) -> Iterator[tuple[core.MessageType, ctypes.LittleEndianStructure]]:
        """The messages in out_queue. One that is bad is told to the log, and all behind it are lost too."""
        while self._out.available:
            try:
                kind, payload = self._take()
            except BadMessage as bad:
                _log.warning("a message of the subsystem is bad, what is queued is dropped: %s", bad)
                self._out.skip()
            else:
                if self.observer is not None:
                    self.observer(False, kind, payload)
                yield kind, payload

    def close(self) -> None:
        self._port.on_interrupt(0, None)
        self._in.close()
        self._out.close()

    def _take(self) -> tuple[core.MessageType, ctypes.LittleEndianStructure]:
        head = core.Message.from_buffer_copy(self._out.take(HEADER_BYTES))
        if head.magic != core.MAGIC:
            raise BadMessage(f"magic {head.magic:#x}")
        if head.length > LONGEST_PAYLOAD:
            raise BadMessage(f"a payload of {head.length} bytes")
        data = self._out.take(head.length)
        try:
            kind = core.MessageType(head.type)
        except ValueError:
            raise BadMessage(f"type {head.type}") from None
        expected = ctypes.sizeof(core.PAYLOADS[kind])
        if head.length != expected:
            raise BadMessage(f"{kind.name} with {head.length} bytes instead of {expected}")
        payload = core.PAYLOADS[kind].from_buffer_copy(data)
        if isinstance(payload, core.ErrorMessage):
            raise BadMessage(f"error {payload.type}: {payload.msg.decode('ascii', 'replace')}")
        return kind, payload
