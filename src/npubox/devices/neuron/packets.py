# SPDX-License-Identifier: Apache-2.0
"""What descriptors say: packets of sources that fill buffers (facts, neuron.md §6.3, §12.4)."""

from __future__ import annotations

import functools
from typing import NamedTuple

from npubox.devices.neuron.address_map import canonical
from npubox.devices.neuron.faults import QueueFault
from npubox.hw.neuron import descriptors
from npubox.hw.neuron.descriptors import FORMAT, MAX_LENGTH, RING_ID_MASK, RING_ID_SHIFT, SIZE, Control, Meta
from npubox.hw.neuron.notification import ErrorCode
from npubox.hw.neuron.udma import PACKET_MAX_BYTES, PACKET_MAX_DESCRIPTORS

# Plain numbers: the loops below run for every descriptor, and enums are slow
_LENGTH = int(descriptors.LENGTH_MASK)
_FIRST, _LAST = int(Control.FIRST), int(Control.LAST)
_FRAME = _FIRST | _LAST
_RX_KNOWN = _LENGTH | RING_ID_MASK << RING_ID_SHIFT | int(Control.INTERRUPT | Control.NO_SNOOP)
_TX_KNOWN = _RX_KNOWN | _FRAME | int(Control.DMB)
_UNKNOWN = 0xFFFFFFFF
_TX_SIMPLE = _UNKNOWN & ~_TX_KNOWN | _FRAME
_RX_UNKNOWN = _UNKNOWN & ~_RX_KNOWN
_DMB = int(Control.DMB)
_MOST_JOINED = 128
_ADDRESS_SHIFT = 64
_COPY, _COPY_BARRIER = int(Meta.COPY), int(Meta.COPY_WRITE_BARRIER)


class Copy(NamedTuple):
    """`size` bytes from one device address to another."""

    source: int
    to: int
    size: int


class Packet(NamedTuple):
    """One packet, or several that are one contiguous copy: copies in order, and how many descriptors of each
    side they use up. `sources` and `buffers` are the sizes of a single packet's parts, for completions.
    """

    copies: list[Copy]
    size: int
    tx: int
    rx: int
    sources: list[int]
    buffers: list[int]


class Packets:
    """Takes packets off the fetched descriptors of both sides, until one is not all there."""

    def __init__(self, tx: bytes, rx: bytes, joining: bool) -> None:
        """`joining`: packets that are contiguous on both sides may come as one."""
        self._tx = tx
        self._rx = rx
        self._tx_at = 0
        self._rx_at = 0
        """Where the next descriptor is, in bytes."""
        self._joining = joining

    def take(self) -> Packet | None:
        """The next packet; None if not all its sources or buffers have been fetched. Raises QueueFault."""
        if self._tx_at >= len(self._tx):
            return None
        packet = self._simple() or self._gather()
        if packet is not None:
            self._tx_at += packet.tx * SIZE
            self._rx_at += packet.rx * SIZE
        return packet

    def _simple(self) -> Packet | None:
        """Packets of one source and one buffer each, as the driver makes them; None if the next is not one.

        Ranges that overlap are not joined: later packets must see what earlier ones wrote.
        """
        tx, rx, at, rx_at = self._tx, self._rx, self._tx_at, self._rx_at
        if rx_at >= len(rx):
            return None
        control, meta, source = FORMAT.unpack_from(tx, at)
        rx_control, second, to = FORMAT.unpack_from(rx, rx_at)
        length = control & _LENGTH or MAX_LENGTH
        if (
            control & _TX_SIMPLE != _FRAME
            or (meta != _COPY and meta != _COPY_BARRIER)
            or rx_control & _RX_UNKNOWN
            or (rx_control & _LENGTH or MAX_LENGTH) < length
        ):
            return None
        size, count = length, 1
        if self._joining:
            # Most runs are of descriptors that are alike but for their addresses
            most = min(len(tx) - at, len(rx) - rx_at) // SIZE
            most = min(most, abs(canonical(source) - canonical(to)) // length, _MOST_JOINED)
            if most > 1 and FORMAT.unpack_from(tx, at + SIZE) == (control, meta, source + length):
                count = min(_alike(tx, at, most, length), _alike(rx, rx_at, most, length))
                size = count * length
            if count < most:  # the driver's last one has a barrier
                last = (control ^ _DMB, meta, source + size)
                rx_last = (rx_control, second, to + size)
                if (
                    FORMAT.unpack_from(tx, at + count * SIZE) == last
                    and FORMAT.unpack_from(rx, rx_at + count * SIZE) == rx_last
                ):
                    size += length
                    count += 1
        return Packet([Copy(canonical(source), canonical(to), size)], size, count, count, [size], [size])

    def _gather(self) -> Packet | None:
        """A packet of any number of sources and buffers."""
        sources = self._sources()
        if sources is None:
            return None
        buffers = self._buffers(sum(size for _, size in sources))
        if buffers is None:
            return None
        source_sizes, buffer_sizes = [size for _, size in sources], [size for _, size in buffers]
        return Packet(
            _pair(sources, buffers),
            sum(source_sizes),
            len(sources),
            len(buffers),
            source_sizes,
            buffer_sizes,
        )

    def _sources(self) -> list[tuple[int, int]] | None:
        """The packet's sources: address and size."""
        sources: list[tuple[int, int]] = []
        total = 0
        until = self._tx_at + (PACKET_MAX_DESCRIPTORS + 1) * SIZE
        for control, meta, address in FORMAT.iter_unpack(self._tx[self._tx_at : until]):
            if bool(control & _FIRST) != (not sources):
                reason = f"TX descriptor {control:#010x}: FIRST is not where a packet starts"
                raise QueueFault(ErrorCode.FIRST_LAST, reason)
            if meta not in (_COPY, _COPY_BARRIER):
                reason = f"TX meta control {meta:#010x} is not a plain copy: not modelled"
                raise QueueFault(ErrorCode.TRANSFORM, reason)
            if control & ~_TX_KNOWN:
                reason = f"TX control {control:#010x} has bits that are not modelled"
                raise QueueFault(ErrorCode.TRANSFORM, reason)
            size = control & _LENGTH or MAX_LENGTH
            sources.append((canonical(address), size))
            total += size
            if len(sources) > PACKET_MAX_DESCRIPTORS:
                reason = f"a packet of more than {PACKET_MAX_DESCRIPTORS} descriptors"
                raise QueueFault(ErrorCode.PACKET_DESCRIPTORS, reason)
            if total > PACKET_MAX_BYTES:
                raise QueueFault(
                    ErrorCode.PACKET_LENGTH, f"a packet of more than {PACKET_MAX_BYTES:#x} bytes"
                )
            if control & _LAST:
                return sources
        return None

    def _buffers(self, size: int) -> list[tuple[int, int]] | None:
        """Buffers for `size` bytes: address and how much of them is used."""
        buffers: list[tuple[int, int]] = []
        for at in range(self._rx_at, len(self._rx), SIZE):
            control, _, address = FORMAT.unpack_from(self._rx, at)
            if control & _RX_UNKNOWN:
                reason = f"RX control {control:#010x} has bits that are not modelled"
                raise QueueFault(ErrorCode.TRANSFORM, reason, receiving=True)
            used = min(size, control & _LENGTH or MAX_LENGTH)
            buffers.append((canonical(address), used))
            size -= used
            if not size:
                return buffers
        return None


def _alike(data: bytes, at: int, most: int, step: int) -> int:
    """How many of the `most` descriptors from byte `at` on, at least 1, are as the first, each with an
    address `step` higher than the one before.

    All of them are one long number here: a look at each takes the time of copying half a page.
    """
    ones, steps = _series(most, step)
    first = int.from_bytes(data[at : at + SIZE], "little")
    found = int.from_bytes(data[at : at + most * SIZE], "little")
    differ = found ^ (first * ones + steps)
    lowest_bit = (differ & -differ).bit_length() - 1
    return lowest_bit // (8 * SIZE) if differ else most


@functools.lru_cache(maxsize=256)
def _series(count: int, step: int) -> tuple[int, int]:
    """`count` descriptors in one number: a 1 in each, and 0, 1, 2... steps in their addresses."""
    places = [1 << 8 * SIZE * index for index in range(count)]
    return sum(places), sum(index * step * place << _ADDRESS_SHIFT for index, place in enumerate(places))


def _pair(sources: list[tuple[int, int]], buffers: list[tuple[int, int]]) -> list[Copy]:
    """Source bytes into buffer bytes, in order; both lists are of one total size."""
    copies = []
    left = iter(buffers)
    to, room = next(left)
    for source, size in sources:
        while size:
            if not room:
                to, room = next(left)
            count = min(size, room)
            copies.append(Copy(source, to, count))
            source, to, size, room = source + count, to + count, size - count, room - count
    return copies
