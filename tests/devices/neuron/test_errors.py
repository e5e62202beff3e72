# SPDX-License-Identifier: Apache-2.0
"""What is wrong with descriptors: the queue stops, says why, and everything else lives on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from npubox.bus.port import Prot
from npubox.devices.neuron import address_map
from npubox.devices.neuron.memory import move
from npubox.hw.neuron import address, udma
from npubox.hw.neuron.address import Window, through
from npubox.hw.neuron.descriptors import Control, pack_rx, pack_tx
from npubox.hw.neuron.notification import FORMAT, SIZE, ErrorCode, start_record
from npubox.hw.neuron.putils import NotificationType, putils_base, queue_registers
from npubox.hw.neuron.udma import M2sError, QueueReg, S2mError, Secondary
from tests.devices.neuron.bench import DATA, Bench, Queue, wait_until

ERRORS = 0x9_0000
"""Where the ERROR queue of core 0 is in host memory."""
FRAMED = Control.FIRST | Control.LAST


@pytest.fixture
def stopped(bench: Bench) -> Callable[[Queue, int, ErrorCode], None]:
    """Check that a queue of engine 0 stopped at a head, with the code in the ERROR queue."""
    registers = queue_registers(NotificationType.ERROR)
    for register, value in (
        (registers.base_lo, bench.host.address(ERRORS) & 0xFFFFFFFF),
        (registers.base_hi, bench.host.address(ERRORS) >> 32),
        (registers.size, 4096),
    ):
        bench.apb(putils_base(0) + register, value)

    def check(queue: Queue, head: int, code: ErrorCode) -> None:
        at = ERRORS + SIZE
        wait_until(lambda: bench.host.memory[at + 1] & 1 == 1)
        kind, _, source, number, _ = FORMAT.unpack_from(bench.host.memory, at)
        assert (kind, source, number) == (NotificationType.ERROR, queue.number, code)
        assert bench.host.memory[ERRORS : ERRORS + SIZE] == start_record(0, NotificationType.ERROR, 0)
        assert queue.pointers()[0] == head
        (record,) = bench.chip.faults
        assert (record.engine << 4 | record.queue, record.fault.code) == (queue.number, code)
        lives_on(bench, queue)

    return check


def lives_on(bench: Bench, queue: Queue) -> None:
    """Another queue of the engine works; the stopped one ignores doorbells until its reset, then works."""
    bench.host.memory[DATA : DATA + 4] = b"live"
    other = bench.queue(0, 9)
    other.copy((bench.host.address(DATA), 0xA_0000, 4))
    other.wait()
    before = queue.pointers()
    bench.apb(queue.s2m + QueueReg.TAIL_INCREMENT, 1)
    bench.apb(queue.m2s + QueueReg.TAIL_INCREMENT, 1)
    other.copy((0xA_0000, 0xA_1000, 4))
    other.wait()
    assert queue.pointers() == before
    queue.init()
    queue.copy((0xA_0000, 0xA_2000, 4))
    queue.wait()
    assert bench.chip.memory.read(0xA_1000, 4) == bench.chip.memory.read(0xA_2000, 4) == b"live"


Stopped = Callable[[Queue, int, ErrorCode], None]


@pytest.mark.parametrize(
    ("source", "to"),
    [
        (through(Window.HOST, 0x7F00_0000), 0),
        (0, through(Window.HOST, 0x7F00_0000)),
        (address.dram_address(2), 0),
        (0, 0x0FFE_0000_0000),
        (through(Window.WEST, 0), 0),
        (0, through(Window.EAST, 0)),
        (1 << 48, 0),
        (address.dram_address(1, (4 << 30) - 4), 0),
    ],
)
def test_pointing_nowhere(bench: Bench, stopped: Stopped, source: int, to: int) -> None:
    queue = bench.queue(0, 1)
    queue.copy((bench.host.address(DATA), 0x1000, 8), (bench.host.address(DATA), 0x1008, 8), (source, to, 64))
    stopped(queue, 2, ErrorCode.ADDRESS)


def test_running_out_of_the_hosts_memory(bench: Bench, stopped: Stopped) -> None:
    """In the middle of contiguous descriptors: those before it are done, the head says which it was."""
    end = len(bench.host.memory)
    bench.host.memory[end - 8192 :] = b"x" * 8192
    queue = bench.queue(0, 1)
    queue.copy(*((bench.host.address(end - 8192 + n * 4096), n * 4096, 4096) for n in range(4)))
    stopped(queue, 2, ErrorCode.ADDRESS)
    assert bench.chip.memory.read(0, 12288) == b"x" * 8192 + bytes(4096)


def test_wrong_lap(bench: Bench, stopped: Stopped) -> None:
    queue = bench.queue(0, 1)
    queue.copy((0, 0x1000, 8))
    queue.wait()
    queue.put(0, pack_tx(0, 8, 3))
    queue.put(1, pack_rx(0x1000, 8, 0))
    queue.ring(1, 1)
    stopped(queue, 1, ErrorCode.RING_ID)


def test_stale_descriptors_after_the_wrap(bench: Bench, stopped: Stopped) -> None:
    """A doorbell for more than was written: the next lap's place still has the last lap's descriptors."""
    queue = bench.queue(0, 1, 32)
    queue.copy(*((0, 0x1000, 8) for _ in range(30)))
    queue.wait()
    queue.copy((0, 0x1000, 8), (0, 0x1000, 8))
    queue.wait()
    queue.ring(1, 1)
    stopped(queue, 0, ErrorCode.RING_ID)
    assert bench.read_apb(udma.engine_base(0) + udma.secondary_group(udma.M2S_ERRORS)) == M2sError.RING_ID


def test_wrong_lap_of_a_buffer(bench: Bench, stopped: Stopped) -> None:
    queue = bench.queue(0, 1)
    queue.put(0, pack_tx(0, 8, 0))
    queue.put(1, pack_rx(0x1000, 8, 2))
    queue.ring(1, 1)
    stopped(queue, 0, ErrorCode.RING_ID)
    cause = udma.engine_base(0) + udma.secondary_group(udma.S2M_ERRORS) + Secondary.CAUSE
    assert bench.read_apb(cause) == S2mError.RING_ID
    bench.apb(cause, 0)
    assert bench.read_apb(cause) == 0


@pytest.mark.parametrize(
    ("sources", "code"),
    [
        ([pack_tx(0, 8, 0, Control.LAST)], ErrorCode.FIRST_LAST),
        ([pack_tx(0, 8, 0, Control.FIRST), pack_tx(0, 8, 0, FRAMED)], ErrorCode.FIRST_LAST),
        ([pack_tx(0, 8, 0, FRAMED, meta=0x0108_4003)], ErrorCode.TRANSFORM),
        ([pack_tx(0, 8, 0, FRAMED | Control.META_DATA)], ErrorCode.TRANSFORM),
        ([pack_tx(0, 8, 0, FRAMED | Control.CONCAT)], ErrorCode.TRANSFORM),
        (
            [
                pack_tx(0, 65536, 0, Control.FIRST),
                *[pack_tx(0, 65536, 0, 0)] * 15,
                pack_tx(0, 4, 0, Control.LAST),
            ],
            ErrorCode.PACKET_LENGTH,
        ),
        ([pack_tx(0, 1, 0, Control.FIRST), *[pack_tx(0, 1, 0, 0)] * 128], ErrorCode.PACKET_DESCRIPTORS),
    ],
)
def test_bad_packets(bench: Bench, stopped: Stopped, sources: list[bytes], code: ErrorCode) -> None:
    queue = bench.queue(0, 1, 256)
    queue.put(0, *sources)
    queue.put(1, *[pack_rx(0x1000, 65536, 0)] * 20)
    queue.ring(len(sources), 20)
    stopped(queue, 0, code)


def test_a_second_buffer_is_not_modelled(bench: Bench, stopped: Stopped) -> None:
    queue = bench.queue(0, 1)
    queue.put(0, pack_tx(0, 8, 0))
    queue.put(1, pack_rx(0x1000, 8, 0, Control.CONCAT))
    queue.ring(1, 1)
    stopped(queue, 0, ErrorCode.TRANSFORM)


@pytest.mark.parametrize("to", [address.APB + 0x1002, address.CORE_WINDOWS + 0x270_0002])
def test_registers_are_written_in_words(bench: Bench, stopped: Stopped, to: int) -> None:
    queue = bench.queue(0, 1)
    queue.copy((0, to, 4))
    stopped(queue, 0, ErrorCode.REGISTER_ACCESS)


def test_a_doorbell_beyond_the_ring(bench: Bench, stopped: Stopped) -> None:
    queue = bench.queue(0, 1)
    queue.ring(udma.POINTER_MASK, 1)
    stopped(queue, 0, ErrorCode.TAIL_OVERFLOW)


def test_ring_memory_that_is_gone(bench: Bench, stopped: Stopped) -> None:
    queue = bench.queue(0, 1)
    bench.apb(queue.m2s + QueueReg.RING_BASE_LO, 0x7F00_0000)
    queue.ring(1, 1)
    stopped(queue, 0, ErrorCode.RING_FETCH)


def test_a_ring_of_a_bad_length(bench: Bench, stopped: Stopped) -> None:
    queue = bench.queue(0, 1)
    bench.apb(queue.m2s + QueueReg.RING_LENGTH, 72)
    queue.ring(1, 1)
    stopped(queue, 0, ErrorCode.RING_FETCH)


def test_memory_is_unmapped_when_no_copy_reads_it_any_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then its pages may be another's. So is a queue reset when its last copy is over."""
    begun, goes_on = threading.Event(), threading.Event()

    def slow_move(to: int, source: int, size: int) -> None:
        begun.set()
        goes_on.wait()
        move(to, source, size)

    fd = os.memfd_create("taken away", os.MFD_CLOEXEC)
    os.ftruncate(fd, 4096)
    os.pwrite(fd, b"before", 0)
    bench.port.dma.map(0x6000_0000, fd, 0, 4096, Prot.READ)
    monkeypatch.setattr(address_map, "move", slow_move)
    queue = bench.queue(0, 0)
    queue.copy((through(Window.HOST, 0x6000_0000), 0, 4096))
    begun.wait()
    waiting = [
        threading.Thread(target=bench.port.dma.unmap, args=(0x6000_0000, 4096)),
        threading.Thread(target=bench.apb, args=(queue.m2s + QueueReg.M2S_SW_CTRL, udma.SW_CTRL_RESET)),
    ]
    for thread in waiting:
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
    goes_on.set()
    for thread in waiting:
        thread.join()
    os.pwrite(fd, b"secret", 0)
    assert bench.chip.memory.read(0, 6) == b"before"
    os.close(fd)
