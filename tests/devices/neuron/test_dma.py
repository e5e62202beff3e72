# SPDX-License-Identifier: Apache-2.0
"""Descriptor rings: what is copied where, laps, packets, completions (facts, neuron.md §6, §12.4)."""

from __future__ import annotations

import itertools
import random
import threading

import pytest

from npubox.hw.neuron import address, core_window, udma
from npubox.hw.neuron.address import PORT_1, dram_address
from npubox.hw.neuron.descriptors import COMPLETION_FORMAT, SIZE, Completion, Control, pack_rx, pack_tx
from npubox.hw.neuron.pci import Bar
from npubox.hw.neuron.udma import EngineReg, QueueReg
from tests.devices.neuron.bench import DATA, Bench, wait_until

FIRST, LAST = Control.FIRST, Control.LAST
KIB64 = 0x1_0000


def fill(bench: Bench, size: int, seed: int = 1) -> bytes:
    data = random.Random(seed).randbytes(size)
    bench.host.memory[DATA : DATA + size] = data
    return data


def test_the_drivers_copy_of_100000_bytes(bench: Bench) -> None:
    """The golden vector's: two pieces, barrier on the last, marker (§16)."""
    data = fill(bench, 100_000)
    host = bench.host
    host.memory[0x1F000:0x1F008] = bytes.fromhex("01efcdab00000000")
    queue = bench.queue(2, 15, 8192)
    queue.copy(
        (host.address(DATA), 0x1000, KIB64),
        (host.address(DATA) + KIB64, 0x1_1000, 34464),
        (host.address(0x1F000), host.address(0x1F004), 4),
    )
    wait_until(lambda: host.word(0x1F004) == 0xABCDEF01)
    assert bench.chip.memory.read(0x1000, 100_000) == data


def test_every_way_between_memories(bench: Bench) -> None:
    """Host, both channels, a core's window, either AXI port; length 0 is 64 KiB."""
    data = fill(bench, KIB64)
    window = address.CORE_WINDOWS + 2 * address.CORE_WINDOW_SIZE
    stops = [0x4000, dram_address(1, 0x8000), window, PORT_1 | 0x20_0000, dram_address(1, (4 << 30) - KIB64)]
    way = [bench.host.address(DATA), *stops, bench.host.address(DATA + 0x8_0000)]
    queue = bench.queue(7, 3)
    for source, to in itertools.pairwise(way):
        queue.put(0, pack_tx(source, KIB64, 0))
        queue.put(1, pack_rx(to, KIB64, 0))
        queue.ring(1, 1)
    queue.wait()
    assert bench.host.memory[DATA + 0x8_0000 : DATA + 0x8_0000 + KIB64] == data
    assert bench.chip.memory.read(0x20_0000, KIB64) == data


def test_laps_of_a_ring_of_80(bench: Bench) -> None:
    queue = bench.queue(1, 3, 80)
    pick = random.Random(3)
    for round_ in range(40):
        data = fill(bench, KIB64, seed=round_)
        copies = [
            (bench.host.address(DATA + n * 2048), dram_address(1, n * 4096 + round_), 100 + n * 37)
            for n in range(pick.randint(1, 32))
        ]
        queue.copy(*copies)
        queue.wait()
        for n, (_, to, size) in enumerate(copies):
            assert bench.chip.memory.read(to, size) == data[n * 2048 : n * 2048 + size]
    assert bench.read_apb(queue.m2s + QueueReg.TAIL) >> 30 == queue.ring_id(0)


def test_several_sources_fill_several_buffers(bench: Bench) -> None:
    data = fill(bench, 4096)
    queue = bench.queue(0, 0)
    host = bench.host
    queue.put(0, pack_tx(host.address(DATA), 100, 0, FIRST))
    queue.put(0, pack_tx(host.address(DATA + 100), 1000, 0, 0))
    queue.put(0, pack_tx(host.address(DATA + 1100), 400, 0, LAST))
    queue.put(0, pack_tx(host.address(DATA + 1500), 500, 0))
    queue.put(1, pack_rx(0x1000, 700, 0), pack_rx(0x3000, 4000, 0), pack_rx(0x6000, 300, 0))
    queue.put(1, pack_rx(0x8000, 300, 0))
    queue.ring(4, 4)
    queue.wait()
    read = bench.chip.memory.read
    assert read(0x1000, 700) + read(0x3000, 800) == data[:1500]
    assert read(0x3000 + 800, 100) == bytes(100), "a packet starts in a buffer of its own"
    assert read(0x6000, 300) + read(0x8000, 200) == data[1500:2000]


def test_work_waits_for_both_sides(bench: Bench) -> None:
    fill(bench, 4096)
    queue = bench.queue(0, 0)
    queue.put(1, pack_rx(0x1000, 4096, 0))
    queue.ring(0, 1)
    queue.put(0, pack_tx(bench.host.address(DATA), 16, 0, FIRST))
    queue.ring(1, 0)
    other = bench.queue(0, 1)
    other.copy((bench.host.address(DATA), 0x9000, 16))
    other.wait()
    assert queue.pointers() == (0, 0), "half a packet must wait"
    queue.put(0, pack_tx(bench.host.address(DATA + 16), 16, 0, LAST))
    queue.ring(1, 0)
    queue.wait()
    assert bench.chip.memory.read(0x1000, 32) == bench.host.memory[DATA : DATA + 32]


def test_later_copies_see_what_earlier_ones_wrote(bench: Bench) -> None:
    """Contiguous descriptors whose ranges overlap: a pattern runs on through the destination."""
    fill(bench, 256)
    queue = bench.queue(0, 0)
    queue.copy((bench.host.address(DATA), 0, 256), *((n * 256, n * 256 + 256, 256) for n in range(15)))
    queue.wait()
    assert bench.chip.memory.read(0, 4096) == bytes(bench.host.memory[DATA : DATA + 256]) * 16


def test_rings_in_device_memory_through_port_1(bench: Bench) -> None:
    data = fill(bench, 64)
    queue = bench.queue(4, 0)
    bench.chip.memory.write(0x9_0000, (b"".join([pack_tx(bench.host.address(DATA), 64, 1)])))
    bench.chip.memory.write(dram_address(1, 0x9_0000), pack_rx(0x100, 64, 1))
    for base, ring in ((queue.m2s, 0x9_0000), (queue.s2m, dram_address(1, 0x9_0000))):
        bench.apb(base + QueueReg.RING_BASE_LO, ring & 0xFFFFFFFF)
        bench.apb(base + QueueReg.RING_BASE_HI, (PORT_1 | ring) >> 32)
    queue.ring(1, 1)
    wait_until(lambda: queue.pointers() == (1, 1))
    assert bench.chip.memory.read(0x100, 64) == data


def test_semaphores_and_events_as_destinations(bench: Bench) -> None:
    window = address.CORE_WINDOWS + address.CORE_WINDOW_SIZE
    increment = core_window.SEMAPHORE_INCREMENT + 5 * 4
    bench.port.write32(Bar.AXI, address.CORE_WINDOW_SIZE + core_window.SEMAPHORE_SET + 5 * 4, 10)
    bench.host.memory[DATA : DATA + 8] = (32).to_bytes(4, "little") + (1).to_bytes(4, "little")
    queue = bench.queue(4, 0)
    queue.copy(
        (bench.host.address(DATA), window + increment, 4),
        (bench.host.address(DATA + 4), window + core_window.EVENTS + 9 * 4, 4),
    )
    queue.wait()
    assert bench.read(window + core_window.SEMAPHORE_READ + 5 * 4) == [42]
    assert bench.read(window + core_window.EVENTS + 9 * 4) == [1]


def test_a_queue_can_ring_another_queues_doorbell(bench: Bench) -> None:
    fill(bench, 64)
    first, second = bench.queue(0, 0), bench.queue(8, 7)
    second.put(0, pack_tx(bench.host.address(DATA), 64, 0))
    second.put(1, pack_rx(0x3000, 64, 0))
    bench.host.memory[DATA + 64 : DATA + 68] = (1).to_bytes(4, "little")
    first.copy(
        *(
            (bench.host.address(DATA + 64), address.APB + base + QueueReg.TAIL_INCREMENT, 4)
            for base in (second.s2m, second.m2s)
        )
    )
    second.wait()
    assert bench.chip.memory.read(0x3000, 64) == bench.host.memory[DATA : DATA + 64]


def test_completions(bench: Bench) -> None:
    """Rings of completions where they are asked for; the driver of neuron.md §6 never does."""
    fill(bench, 4096)
    queue = bench.queue(0, 0)
    where = {queue.m2s: 0x8_0000, queue.s2m: 0x8_1000}
    for base, at in where.items():
        bench.apb(base + QueueReg.COMPLETION_BASE_LO, bench.host.address(at) & 0xFFFFFFFF)
        bench.apb(base + QueueReg.COMPLETION_BASE_HI, bench.host.address(at) >> 32)
    bench.apb(queue.m2s + QueueReg.M2S_COMP_CFG, 1)
    bench.apb(queue.s2m + QueueReg.S2M_COMP_CFG, 1)
    queue.put(
        0, pack_tx(bench.host.address(DATA), 100, 0, FIRST), pack_tx(bench.host.address(DATA), 50, 0, LAST)
    )
    queue.put(1, pack_rx(0x1000, 4096, 0))
    queue.ring(2, 1)
    queue.wait()
    words = {
        base: [COMPLETION_FORMAT.unpack_from(bench.host.memory, at + n * SIZE)[0] for n in range(2)]
        for base, at in where.items()
    }
    assert words[queue.m2s] == [100 | 1 << 24 | Completion.FIRST, 50 | 1 << 24 | Completion.LAST]
    assert words[queue.s2m] == [150 | 1 << 24 | Completion.FIRST | Completion.LAST, 0]
    assert bench.read_apb(queue.s2m + QueueReg.COMPLETION_HEAD) == 1 | 1 << 30


@pytest.mark.parametrize(("spare", "head"), [(1, 0), (0, 1)])
def test_the_s2m_completion_head_without_a_ring(bench: Bench, spare: int, head: int) -> None:
    fill(bench, 16)
    bench.apb(udma.engine_base(0) + EngineReg.SPARE, spare)
    queue = bench.queue(0, 0)
    queue.copy((bench.host.address(DATA), 0, 16))
    queue.wait()
    assert bench.read_apb(queue.s2m + QueueReg.COMPLETION_HEAD) & 0xFFFF == head
    assert bench.read_apb(queue.m2s + QueueReg.COMPLETION_HEAD) & 0xFFFF == 1


def test_a_disabled_engine_keeps_its_work_until_it_is_normal(bench: Bench) -> None:
    data = fill(bench, 16)
    queue = bench.queue(6, 0)
    base = udma.engine_base(6)
    bench.apb(base + EngineReg.M2S_CHANGE_STATE, udma.ChangeState.ABORT)
    assert bench.read_apb(base + EngineReg.M2S_STATE) == 0x2222
    queue.copy((bench.host.address(DATA), 0x100, 16))
    other = bench.queue(7, 0)
    other.copy((bench.host.address(DATA), 0x200, 16))
    other.wait()
    assert queue.pointers() == (0, 0)
    bench.apb(base + EngineReg.M2S_CHANGE_STATE, udma.ChangeState.NORMAL)
    queue.wait()
    assert bench.chip.memory.read(0x100, 16) == data


def test_device_time_passes_with_the_bytes(bench: Bench) -> None:
    fill(bench, KIB64)
    queue = bench.queue(0, 0)
    queue.copy(*((bench.host.address(DATA), 0, KIB64) for _ in range(10)))
    queue.wait()
    assert bench.clock.now() == 10 * (KIB64 // 8 + 100)


def test_a_lent_thread_does_the_work(bench: Bench) -> None:
    """Whoever waits may do it; a queue that nobody waits for goes on by itself."""
    data = fill(bench, KIB64)
    queue = bench.queue(0, 0)
    assert not bench.port.lend(), "there is nothing to do"
    for number in range(50):
        queue.copy((bench.host.address(DATA), number * KIB64, KIB64))
        bench.port.lend()
    queue.wait()
    queue.copy((bench.host.address(DATA), 50 * KIB64, KIB64))
    queue.wait()
    assert bench.chip.memory.read(0, 51 * KIB64) == data * 51


def test_two_threads_and_one_queue(bench: Bench) -> None:
    """Slices never overlap, whoever runs them: a chain of copies that each depend on the one before."""
    data = fill(bench, 4096)
    queue = bench.queue(3, 1, 1024)
    stop = threading.Event()

    def lend() -> None:
        while not stop.is_set():
            bench.port.lend()

    lenders = [threading.Thread(target=lend) for _ in range(2)]
    for lender in lenders:
        lender.start()
    queue.copy((bench.host.address(DATA), 0, 4096))
    for number in range(200):
        queue.copy((number * 4096, (number + 1) * 4096, 4096))
    queue.wait()
    stop.set()
    for lender in lenders:
        lender.join()
    assert bench.chip.memory.read(200 * 4096, 4096) == data
