# SPDX-License-Identifier: Apache-2.0
"""Pipe links: neighbours' memory and registers through the east and west windows (facts, neuron.md §9.1)."""

from __future__ import annotations

import random

from npubox.hw.neuron import address, core_window
from npubox.hw.neuron.address import Window, dram_address, through
from npubox.hw.neuron.misc_ram import MiscReg
from tests.devices.neuron.bench import DATA, chain

DEVICE_ID = address.MISC_RAM + MiscReg.DEVICE_ID
SIZE = 300_000


def test_who_is_next_to_whom() -> None:
    with chain(4) as benches:
        links = [bench.read(address.MISC_RAM + MiscReg.STATUS)[0] & 3 for bench in benches]
        assert links == [1, 3, 3, 2]
        assert [b.read(through(Window.EAST, DEVICE_ID))[0] for b in benches] == [1, 2, 3, 0xDEADBEEF]
        assert [b.read(through(Window.WEST, DEVICE_ID))[0] for b in benches] == [0xDEADBEEF, 0, 1, 2]


def test_through_all_16_and_back() -> None:
    """Every chip passes the data on to the next and back, without a byte of the hosts' in between."""
    data = random.Random(16).randbytes(SIZE)
    pieces = range(0, SIZE, 65536)

    with chain(16) as benches:
        queues = [bench.queue(0, 0) for bench in benches]

        def copy(chip: int, source: int, to: int) -> None:
            queues[chip].copy(*((source + at, to + at, min(65536, SIZE - at)) for at in pieces))
            queues[chip].wait()

        there, back = 0x10_0000, dram_address(1, 0x20_0000)
        benches[0].host.memory[DATA : DATA + SIZE] = data
        copy(0, benches[0].host.address(DATA), there)
        for chip in range(15):
            copy(chip, there, through(Window.EAST, there))
        copy(15, there, back)
        for chip in range(15, 0, -1):
            copy(chip, back, through(Window.WEST, back))
        moved = [bench.chip.memory.host_bytes for bench in benches]
        copy(0, back, benches[0].host.address(DATA + 0x8_0000))
        assert benches[0].host.memory[DATA + 0x8_0000 : DATA + 0x8_0000 + SIZE] == data
        assert moved == [SIZE, *[0] * 15]


def test_a_neighbours_semaphores_and_no_further() -> None:
    with chain(3) as benches:
        window = address.CORE_WINDOWS + address.CORE_WINDOW_SIZE
        benches[0].host.memory[DATA : DATA + 4] = (5).to_bytes(4, "little")
        queue = benches[0].queue(0, 0)
        semaphore = through(Window.EAST, window + core_window.SEMAPHORE_INCREMENT)
        queue.copy(*((benches[0].host.address(DATA), semaphore, 4) for _ in range(3)))
        queue.wait()
        assert benches[1].read(window + core_window.SEMAPHORE_READ) == [15]
        assert benches[2].read(window + core_window.SEMAPHORE_READ) == [0]
