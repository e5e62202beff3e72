# SPDX-License-Identifier: Apache-2.0
"""FWIO: registers read, and metrics posted, through the firmware (facts, neuron.md §8).

On this generation every register read of the driver is such a message.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence

from npubox.bus.port import PciDevice
from npubox.drivers.misc.neuron.memory import Chunk, Lifetime, Memory, Request
from npubox.drivers.misc.neuron.work import MILLISECOND, SECOND, Steps, Turns, poll
from npubox.hw.neuron import fwio as messages
from npubox.hw.neuron import misc_ram
from npubox.hw.neuron.misc_ram import MiscReg
from npubox.hw.neuron.pci import Bar
from npubox.uapi.neuron import MemType

ATTEMPTS = 15
REPLY_BUDGET = SECOND
BUFFER_PAGES = 0x1_0000


class Fwio:
    """The message channel of one device; one message at a time."""

    def __init__(self, port: PciDevice, memory: Memory) -> None:
        self._port = port
        self._memory = memory
        self._turns = Turns()
        self._sequence = 1
        self._request = self._buffer()
        self._response = self._buffer()
        self.errors = 0

    def read(self, addresses: Sequence[int]) -> Steps[list[int]]:
        """The 32-bit words at device addresses, in one message. OSError EIO when the firmware fails."""
        if len(addresses) > messages.MAX_ADDRESSES:
            raise OSError(errno.EINVAL, f"{len(addresses)} addresses do not fit into a message")
        data = struct.pack(f"<{len(addresses)}Q", *addresses)
        answer = yield from self._transact(messages.Command.READ, data, 4 * len(addresses))
        # Data that the firmware left out counts as 0.
        return list(struct.unpack(f"<{len(addresses)}I", answer.ljust(4 * len(addresses), b"\0")))

    def post_metrics(self, data: bytes) -> Steps[None]:
        """At most 128 bytes, by MISC RAM and by message. OSError EIO."""
        padded = data.ljust(-(-len(data) // 4) * 4, b"\0")
        for offset in range(0, len(padded), 4):
            self._write(MiscReg.METRICS + offset, int.from_bytes(padded[offset : offset + 4], "little"))
        yield from self._transact(messages.Command.POST_METRICS, data, len(data))

    def _transact(self, command: messages.Command, data: bytes, most: int) -> Steps[bytes]:
        ticket = yield from self._turns.take()
        try:
            for _ in range(ATTEMPTS):
                answer = yield from self._ask(command, data)
                if answer is None:
                    continue
                error, body = answer
                if error == messages.Error.OK and len(body) <= most:
                    return body
                if error in (messages.Error.OK, messages.Error.UNKNOWN_COMMAND):
                    break
        finally:
            self._turns.leave(ticket)
        self.errors += 1
        raise OSError(errno.EIO, f"the firmware did not carry out {command.name}")

    def _ask(self, command: messages.Command, data: bytes) -> Steps[tuple[int, bytes] | None]:
        """One attempt: (error, data), None where nothing came within a second."""
        for register, value in (
            (MiscReg.REQUEST_LO, self._request.pa),
            (MiscReg.REQUEST_HI, self._request.pa >> 32),
            (MiscReg.RESPONSE_LO, self._response.pa),
            (MiscReg.RESPONSE_HI, self._response.pa >> 32),
        ):
            self._write(register, value & 0xFFFF_FFFF)
        self._sequence = self._sequence % 255 + 1
        sequence = self._sequence
        self._memory.write(self._request, 0, messages.pack_request(sequence, command, data))
        self._memory.write(self._response, 0, b"\0")
        self._write(MiscReg.DOORBELL, 1)
        came = yield from poll(
            self._port.clock,
            lambda: self._memory.read(self._response, 0, 1)[0] == sequence,
            REPLY_BUDGET,
            first=MILLISECOND // 64,
        )
        if not came:
            return None
        header = messages.RESPONSE_HEADER
        _, error, size = header.unpack(self._memory.read(self._response, 0, header.size))
        return error, self._memory.read(self._response, header.size, max(size - header.size, 0))

    def _write(self, register: int, value: int) -> None:
        self._port.write32(Bar.APB, misc_ram.BASE + register, value)

    def _buffer(self) -> Chunk:
        request = Request(BUFFER_PAGES, host=True, mem_type=MemType.NCDEV_HOST)
        return self._memory.allocate(request, Lifetime.DEVICE)
