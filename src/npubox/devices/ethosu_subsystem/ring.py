# SPDX-License-Identifier: Apache-2.0
"""The two message rings, from the firmware's side (facts, ethosu-linux.md §2.1).

The host shares the memory and may write anything into it, so indices are looked at before they are used.
"""

from __future__ import annotations

import ctypes

import numpy as np

from npubox.devices.ethosu_npu.memory import Memory
from npubox.devices.ethosu_subsystem.configuration import Range
from npubox.hw.ethosu.core_interface import MAGIC, Message, MessageType, QueueHeader, QueueHeaderShort


class Ring:
    """A ring of `size` bytes behind its header. Raises DmaFault where no memory is."""

    def __init__(self, memory: Memory, place: Range, short_header: bool) -> None:
        header = QueueHeaderShort if short_header else QueueHeader
        view = memory.view(place.address, place.size, write=True)
        self._header = header.from_buffer(view.data)
        self._data = view[ctypes.sizeof(header) :]
        self.size = self._data.size

    def start(self) -> None:
        """As the firmware does when it boots: empty; `size` last, as the host waits for it."""
        self._header.read = self._header.write = 0
        self._header.size = self.size

    @property
    def damaged(self) -> bool:
        """Whether an index points outside."""
        return bool(self._header.read >= self.size or self._header.write >= self.size)

    @property
    def available(self) -> int:
        """Bytes to read; of a damaged ring none."""
        return 0 if self.damaged else (self._header.write - self._header.read) % self.size


class InQueue(Ring):
    """What the host writes."""

    @property
    def position(self) -> int:
        """Where the next message starts."""
        return int(self._header.read)

    @property
    def end(self) -> int:
        """Where what has been written ends."""
        return int(self._header.write)

    def read(self, count: int) -> bytes | None:
        """The next `count` bytes, None where there are fewer."""
        if count > self.available:
            return None
        at = int(self._header.read)
        data = self._data[at : at + count].tobytes()
        data += self._data[: count - len(data)].tobytes()
        self._header.read = (at + count) % self.size
        return data

    def drop(self) -> None:
        """Forget everything in it; repair indices that point outside."""
        if self.damaged:
            self._header.read = self._header.write = 0
        else:
            self._header.read = self._header.write


class OutQueue(Ring):
    """What the firmware writes."""

    @property
    def taken(self) -> bool:
        """Whether the host has read all of it, or cannot any more."""
        return self.available == 0

    def write(self, type_: MessageType, payload: bytes, magic: int = MAGIC) -> bool:
        """Append a message; False where it does not fit."""
        data = bytes(Message(magic, type_, len(payload))) + payload
        if self.damaged or len(data) > self.size - self.available - 1:
            return False
        at = int(self._header.write)
        content = np.frombuffer(data, np.uint8)
        straight = min(len(data), self.size - at)
        self._data[at : at + straight] = content[:straight]
        self._data[: len(data) - straight] = content[straight:]
        self._header.write = (at + len(data)) % self.size
        return True

    def corrupt(self) -> None:
        """Damage the write index: an injected fault."""
        self._header.write |= 0x8000_0000
