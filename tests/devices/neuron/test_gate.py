# SPDX-License-Identifier: Apache-2.0
"""The access gate, with which a driver isolates queues (`npubox.hw.neuron.gate`)."""

from __future__ import annotations

from npubox.hw.neuron import gate
from npubox.hw.neuron.address import PORT_1
from npubox.hw.neuron.gate import Command, GateReg, Result
from npubox.hw.neuron.notification import ErrorCode
from tests.devices.neuron.bench import DATA, Bench, Queue, wait_until

OWNER = 7
RING_BYTES = 0x400


def command(bench: Bench, what: Command, start: int = 0, size: int = 0, owner: int = OWNER) -> int:
    for register, value in (
        (GateReg.START_LO, start & 0xFFFFFFFF),
        (GateReg.START_HI, start >> 32),
        (GateReg.SIZE_LO, size & 0xFFFFFFFF),
        (GateReg.SIZE_HI, size >> 32),
        (GateReg.COMMAND, what << 16 | owner),
    ):
        bench.apb(gate.BASE + register, value)
    return bench.port.read32(0, gate.BASE + GateReg.RESULT)


def owned_queue(bench: Bench) -> Queue:
    """A queue whose owner may reach its rings, 4 KiB of host memory and two adjacent pages of DRAM."""
    queue = bench.queue(0, 2)
    for start, size in (
        (bench.host.address(queue.tx_ring), RING_BYTES),
        (bench.host.address(queue.rx_ring), RING_BYTES),
        (bench.host.address(DATA), 4096),
        (0x1000, 4096),
        (0x2000, 4096),
    ):
        assert command(bench, Command.GRANT, start, size) == Result.OK
    bench.apb(gate.BASE + gate.owner_register(0, 2), OWNER)
    return queue


def denied(bench: Bench, queue: Queue) -> None:
    wait_until(lambda: len(bench.chip.faults) > 0)
    assert bench.chip.faults.pop().fault.code == ErrorCode.DENIED
    queue.init()


def test_it_is_there(bench: Bench) -> None:
    assert bench.port.read32(0, gate.BASE + GateReg.ID) == gate.MAGIC


def test_what_is_granted_works(bench: Bench) -> None:
    queue = owned_queue(bench)
    bench.host.memory[DATA : DATA + 4096] = b"mine" * 1024
    queue.copy((bench.host.address(DATA), PORT_1 | 0x1800, 4096), (0x1800, 0x1000, 16))
    queue.wait()
    assert bench.chip.memory.read(0x1800, 4096) == b"mine" * 1024


def test_what_is_not_granted_stops_the_queue(bench: Bench) -> None:
    queue = owned_queue(bench)
    bench.host.memory[DATA : DATA + 4] = b"mine"
    for source, to in (
        (0x3000, 0x1000),
        (0x1000, 0x3000),
        (0x1000, 0x2FFF),
        (bench.host.address(DATA + 4096), 0x1000),
        (0x1000, bench.host.address(queue.tx_ring - 256)),
    ):
        queue.copy((source, to, 4))
        denied(bench, queue)
    assert bench.chip.memory.read(0x2FFF, 8) == bytes(8)
    unowned = bench.queue(0, 3)
    unowned.copy((bench.host.address(DATA), 0x3000, 4))
    unowned.wait()
    assert bench.chip.memory.read(0x3000, 4) == b"mine"


def test_a_revoked_ring_is_not_fetched(bench: Bench) -> None:
    queue = owned_queue(bench)
    assert command(bench, Command.REVOKE, bench.host.address(queue.tx_ring), RING_BYTES) == Result.OK
    queue.copy((0x1000, 0x1100, 4))
    denied(bench, queue)


def test_bad_commands(bench: Bench) -> None:
    assert command(bench, Command.GRANT, 0x1000, 0x1000) == Result.OK
    assert command(bench, Command.GRANT, 0x1800, 0x1000) == Result.OVERLAP
    assert command(bench, Command.GRANT, 0x1800, 0x1000, owner=8) == Result.OK
    assert command(bench, Command.REVOKE, 0x1000, 0x800) == Result.NO_SUCH_RANGE
    assert command(bench, Command.GRANT, 0x8000, 0) == Result.BAD_COMMAND
    assert command(bench, Command.GRANT, 0x8000, 0x1000, owner=0) == Result.BAD_COMMAND


def test_drop_takes_everything_back(bench: Bench) -> None:
    queue = owned_queue(bench)
    assert command(bench, Command.DROP) == Result.OK
    assert bench.port.read32(0, gate.BASE + gate.owner_register(0, 2)) == 0
    bench.apb(gate.BASE + gate.owner_register(0, 2), OWNER)
    queue.copy((0x1000, 0x1100, 4))
    denied(bench, queue)
