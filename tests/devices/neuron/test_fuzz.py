# SPDX-License-Identifier: Apache-2.0
"""Random descriptors and register writes: the chip may refuse them, but it lives on."""

from __future__ import annotations

import logging
import random

import pytest

from npubox.hw.neuron import address, gate, misc_ram, putils, udma
from npubox.hw.neuron.address import Window, through
from npubox.hw.neuron.descriptors import FORMAT, SIZE, Control, Meta
from npubox.hw.neuron.misc_ram import MiscReg
from npubox.hw.neuron.pci import BAR_SIZE, Bar
from tests.devices.neuron.bench import DATA, Bench, wait_until

HOST_SIZE = 4 << 20
INTERESTING = (
    *(0, 1, 4, 0x1000, 0xFFFF_F000, 0x7FFF_FFFF, 0xFFFF_FFFF),
    *(misc_ram.Reset.DEVICE, udma.SW_CTRL_RESET, 0x0303_0000, 64, 0x4000_0000),
)


def addresses(pick: random.Random) -> int:
    """An address that leads somewhere interesting, or nowhere."""
    base = pick.choice(
        (
            0,
            address.dram_address(1),
            address.dram_address(1, (4 << 30) - 100),
            address.CORE_WINDOWS + pick.randrange(4) * address.CORE_WINDOW_SIZE + 0x270_0000,
            address.APB + pick.randrange(BAR_SIZE[Bar.APB]),
            address.APB + udma.engine_base(pick.randrange(12)) + udma.m2s_queue(pick.randrange(16)),
            address.MISC_RAM,
            through(Window.HOST, 0x2000_0000 + pick.randrange(2 * HOST_SIZE)),
            through(Window.EAST, pick.randrange(1 << 46)),
            pick.getrandbits(64),
        )
    )
    return (base + pick.choice((0, 0, 4, pick.randrange(0x1000)))) & (1 << 64) - 1


def descriptors(pick: random.Random, ring_id: int, count: int) -> bytes:
    found = b""
    for _ in range(count):
        flags = Control.FIRST | Control.LAST if pick.random() < 0.8 else pick.getrandbits(8) << 24
        control = pick.getrandbits(pick.choice((4, 10, 16))) & 0xFFFF
        control |= flags & ~0x0300_0000 & 0xFFFFFFFF | (ring_id if pick.random() < 0.95 else 2) << 24
        meta = Meta.COPY if pick.random() < 0.9 else pick.getrandbits(32)
        found += FORMAT.pack(control, meta, addresses(pick))
    return found


def registers(pick: random.Random) -> int:
    """An offset in BAR 0."""
    engine = udma.engine_base(pick.randrange(12))
    side = pick.choice((udma.m2s_queue, udma.s2m_queue))
    return pick.choice(
        (
            engine + side(pick.randrange(16)) + pick.choice(list(udma.QueueReg)),
            engine + pick.choice(list(udma.EngineReg)),
            misc_ram.BASE + pick.choice(list(MiscReg)),
            gate.BASE + pick.randrange(0, 0x400, 4),
            putils.putils_base(pick.randrange(4)) + pick.randrange(0xB00, 0x1200, 4),
            pick.randrange(0, BAR_SIZE[Bar.APB], 4),
        )
    )


@pytest.mark.parametrize("seed", range(8))
def test_the_chip_lives_on(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    pick = random.Random(seed)
    bench = Bench(host_size=HOST_SIZE)
    for _ in range(60):
        queue = bench.queue(pick.randrange(12), pick.randrange(16), 32)
        count = pick.randint(1, 31)
        for ring in (queue.tx_ring, queue.rx_ring):
            bench.host.memory[ring : ring + count * SIZE] = descriptors(pick, 1, count)
        queue.ring(pick.randint(0, count), count)
        for _ in range(20):
            bench.port.read32(Bar.APB, registers(pick))
            bench.apb(registers(pick), pick.choice((*INTERESTING, pick.getrandbits(32))))
            bench.port.write32(Bar.AXI, pick.randrange(0, BAR_SIZE[Bar.AXI], 4), pick.getrandbits(32))
    bench.port.reset()
    assert bench.read(address.MISC_RAM + MiscReg.STATUS) == [misc_ram.Status.READY]
    bench.host.memory[DATA : DATA + 64] = pick.randbytes(64)
    for number in range(12):
        queue = bench.queue(number, 15)
        queue.copy((bench.host.address(DATA), number * 64, 64))
        queue.wait()
        assert bench.chip.memory.read(number * 64, 64) == bench.host.memory[DATA : DATA + 64]
    bench.close()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("seed", range(4))
def test_it_ends_with_work_in_hand(seed: int) -> None:
    """Reset and power down while queues work."""
    pick = random.Random(seed)
    bench = Bench()
    queues = [bench.queue(number, 0, 1024) for number in range(12)]
    for queue in queues:
        queue.copy(*((bench.host.address(DATA), pick.randrange(1 << 30), 65536) for _ in range(500)))
    if seed % 2:
        bench.port.reset()
        wait_until(lambda: bench.read(address.MISC_RAM + MiscReg.STATUS) == [misc_ram.Status.READY])
    bench.close()
