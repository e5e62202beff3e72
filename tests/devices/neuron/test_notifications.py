# SPDX-License-Identifier: Apache-2.0
"""Notification queues: start, entries, wrap, stop (facts, neuron.md §7; the format is ours)."""

from __future__ import annotations

import pytest

from npubox.hw.neuron import address, core_window
from npubox.hw.neuron.notification import EVENT_SET, FORMAT, SIZE, START, start_record
from npubox.hw.neuron.pci import Bar
from npubox.hw.neuron.putils import NotificationType, putils_base, queue_registers
from tests.devices.neuron.bench import Bench

AT = 0x9_0000


def start(bench: Bench, core: int, kind: NotificationType, engine: int, base: int, size: int) -> None:
    registers = queue_registers(kind, engine)
    for register, value in (
        (registers.base_lo, base & 0xFFFFFFFF),
        (registers.base_hi, base >> 32),
        (registers.size, size),
    ):
        bench.apb(putils_base(core) + register, value)


def set_event(bench: Bench, core: int, index: int, value: int) -> None:
    offset = core * address.CORE_WINDOW_SIZE + core_window.EVENTS + index * 4
    bench.port.write32(Bar.AXI, offset, value)


@pytest.mark.parametrize(
    ("kind", "engine"),
    [
        (NotificationType.TRACE, 0),
        (NotificationType.NOTIFY, 3),
        (NotificationType.EVENT, 0),
        (NotificationType.ERROR, 0),
    ],
)
def test_a_queue_starts_with_its_name(bench: Bench, kind: NotificationType, engine: int) -> None:
    start(bench, 2, kind, engine, bench.host.address(AT), 8192)
    assert bench.host.memory[AT : AT + SIZE] == start_record(2, kind, engine)
    assert bench.read_apb(putils_base(2) + queue_registers(kind, engine).head) == SIZE


def test_events_wrap_with_their_phase(bench: Bench) -> None:
    """A reader that follows the phase sees every change, in order, over two laps."""
    ring = 4 * SIZE
    start(bench, 1, NotificationType.EVENT, 0, bench.host.address(AT), ring)
    assert bench.host.memory[AT] == START
    place, phase, seen = SIZE, 1, []
    for index in range(7):
        set_event(bench, 1, index, 1)
        set_event(bench, 1, index, 1)
        kind, flags, _, number, _ = FORMAT.unpack_from(bench.host.memory, AT + place)
        assert (kind, flags & 1) == (NotificationType.EVENT, phase)
        seen.append(number)
        place = (place + SIZE) % ring
        phase ^= place == 0
        assert bench.host.memory[AT + place + 1] & 1 != phase, "nothing more to read"
    set_event(bench, 1, 3, 0)
    assert FORMAT.unpack_from(bench.host.memory, AT + place)[3] == 3
    assert seen == [EVENT_SET | index for index in range(7)]


def test_queues_in_device_memory_and_stopped_ones(bench: Bench) -> None:
    base = address.dram_address(1, 0x8000_0000)
    start(bench, 0, NotificationType.EVENT, 0, base, 65536)
    set_event(bench, 0, 200, 1)
    start(bench, 0, NotificationType.EVENT, 0, 0, 0)
    set_event(bench, 0, 201, 1)
    entries = bench.chip.memory.read(base, 3 * SIZE)
    assert FORMAT.unpack_from(entries, SIZE)[3] == EVENT_SET | 200
    assert entries[2 * SIZE :] == bytes(SIZE)


def test_a_queue_that_points_nowhere_loses_its_entries(bench: Bench) -> None:
    start(bench, 0, NotificationType.EVENT, 0, bench.host.address(0x7F00_0000), 4096)
    set_event(bench, 0, 1, 1)
    start(bench, 0, NotificationType.EVENT, 0, address.APB, 4096)
    set_event(bench, 0, 2, 1)
    start(bench, 0, NotificationType.EVENT, 0, bench.host.address(AT), 4096)
    set_event(bench, 0, 3, 1)
    assert FORMAT.unpack_from(bench.host.memory, AT + SIZE)[3] == EVENT_SET | 3


def test_the_drivers_wild_stops_are_accepted(bench: Bench) -> None:
    """Stopping one queue writes zeros through several register sets, also beyond engine 3."""
    for offset in range(0xBFC, 0x1BC4, 4):
        bench.apb(putils_base(0) + offset, 0)
    assert bench.read_apb(putils_base(0) + 0x1BC0) == 0


def test_semaphores_count(bench: Bench) -> None:
    base = 3 * address.CORE_WINDOW_SIZE
    word = 31 * 4
    for slot, value in (
        (core_window.SEMAPHORE_SET, 10),
        (core_window.SEMAPHORE_INCREMENT, 5),
        (core_window.SEMAPHORE_DECREMENT, 17),
        (core_window.SEMAPHORE_READ, 99),
    ):
        bench.port.write32(Bar.AXI, base + slot + word, value)
    assert bench.port.read32(Bar.AXI, base + core_window.SEMAPHORE_READ + word) == 0xFFFFFFFE
