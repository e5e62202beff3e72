# SPDX-License-Identifier: Apache-2.0
"""Joined packets beside the same ones taken singly (facts, neuron.md §6.3, §12.4)."""

from __future__ import annotations

import random

import pytest

from npubox.devices.neuron.packets import Copy, Packets
from npubox.hw.neuron.address import PORT_1
from npubox.hw.neuron.descriptors import SIZE, Control, Meta, pack_rx, pack_tx

WHOLE = Control.FIRST | Control.LAST
FAR = 0x10_0000_0000


def singly(tx: bytes, rx: bytes, joining: bool) -> list[Copy]:
    """All copies; those of joined packets as the descriptors have them."""
    packets = Packets(tx, rx, joining)
    found = []
    while (packet := packets.take()) is not None:
        if len(packet.copies) == 1:
            (whole,) = packet.copies
            size = whole.size // packet.tx
            found += [Copy(whole.source + n * size, whole.to + n * size, size) for n in range(packet.tx)]
        else:
            found += packet.copies
    return found


@pytest.mark.parametrize("seed", range(200))
def test_joined_packets_are_the_same_copies(seed: int) -> None:
    """Runs of any length that end for any reason: another word, address, control or the ring's end."""
    chance = random.Random(seed)
    tx = rx = b""
    source, to = 0, FAR
    size = chance.choice([4, 512, 4096, 65536])
    for _ in range(chance.randrange(1, 300)):
        flags, meta, second, room = WHOLE, Meta.COPY, 0, size
        match chance.randrange(40):
            case 0:
                source += chance.choice([size, -size, 1 << 20])
            case 1:
                to += chance.choice([size, -size, 1 << 20])
            case 2:
                flags |= Control.DMB
            case 3:
                meta = Meta.COPY_WRITE_BARRIER
            case 4:
                second = 1
            case 5:
                room = 65536
            case 6:
                size = chance.choice([4, 512, 4096, 65536])
        source, to = abs(source), max(to, FAR)
        tx += pack_tx(source, size, 1, flags, meta)
        descriptor = pack_rx(to, max(room, size), 1)
        rx += descriptor[:4] + second.to_bytes(4, "little") + descriptor[8:]
        source, to = source + size, to + size
    rx = rx[: len(rx) - chance.randrange(3) * SIZE]
    assert singly(tx, rx, joining=True) == singly(tx, rx, joining=False)


def test_regular_descriptors_are_one_packet() -> None:
    tx = b"".join(pack_tx(n * 65536, 65536, 1, WHOLE | (Control.DMB if n == 15 else 0)) for n in range(16))
    rx = b"".join(pack_rx(FAR + n * 65536, 65536, 1) for n in range(16))
    packet = Packets(tx, rx, joining=True).take()
    assert packet is not None
    assert (packet.copies, packet.tx, packet.rx) == ([Copy(0, FAR, 1 << 20)], 16, 16)


@pytest.mark.parametrize("port", [0, PORT_1])
def test_what_overlaps_is_not_joined_whichever_port_it_goes_through(port: int) -> None:
    """Each copy must see what the one before it wrote."""
    tx = b"".join(pack_tx(n * 512, 512, 1) for n in range(8))
    rx = b"".join(pack_rx(port | 512 + n * 512, 512, 1) for n in range(8))
    packet = Packets(tx, rx, joining=True).take()
    assert packet is not None
    assert packet.tx == 1
