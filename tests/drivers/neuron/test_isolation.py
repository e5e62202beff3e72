# SPDX-License-Identifier: Apache-2.0
"""With `isolate`, no process reaches another's memory, cores or rings, whatever descriptors it writes."""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import time
from collections.abc import Iterator

import pytest

from npubox.hw.neuron import descriptors
from npubox.hw.neuron.address import APB, CORE_WINDOW_SIZE, CORE_WINDOWS, Window, through
from npubox.hw.neuron.core_window import SEMAPHORE_SET
from npubox.hw.neuron.notification import ErrorCode
from npubox.uapi import neuron as uapi
from npubox.uapi import neuron_structs as structs
from tests.core.refaccel import fails
from tests.drivers.neuron.program import Machine, Program

MIB = 1 << 20
RING = 32
SECRET = b"secret" * 100


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(2, isolate=True) as powered:
        yield powered


@pytest.fixture
def two(machine: Machine) -> Iterator[tuple[Program, Program]]:
    """A victim with core 0 and an attacker with core 1 of device 0."""
    victim, attacker = machine.program(), machine.program()
    for program in (victim, attacker):
        args = structs.CrwlNcMap(nc_count=1, end_nc_index=3)
        assert program.call(uapi.CRWL_NC_RANGE_MARK, args) == 0
    yield victim, attacker
    victim.close()
    attacker.close()


class Ring:
    """A ring of core 1 whose descriptors its process writes itself, straight into its own memory."""

    def __init__(self, program: Program, queue: int = 0) -> None:
        self.program = program
        self.queue = queue
        tx, rx = program.alloc(RING * 16, host=True), program.alloc(RING * 16, host=True)
        self.tx, self.rx = program.mmap(4096, program.pa(tx)), program.mmap(4096, program.pa(rx))
        args = structs.DmaQueueInit(
            eng_id=3, qid=queue, tx_desc_count=RING, rx_desc_count=RING, tx_handle=tx, rx_handle=rx
        )
        assert program.call(uapi.DMA_QUEUE_INIT, args) == 0

    def run(self, source: int, destination: int, size: int) -> ErrorCode | None:
        """Copy, and tell what stopped the queue, None if it did what it was told."""
        self.tx[:16] = descriptors.pack_tx(source, size, 1)
        self.rx[:16] = descriptors.pack_rx(destination, size, 1)
        chip = self.program.machine.chips[0]
        before = len(chip.faults)
        args = structs.DmaQueueCopyStart(eng_id=3, qid=self.queue, tx_desc_count=1, rx_desc_count=1)
        assert self.program.call(uapi.DMA_QUEUE_COPY_START, args) == 0
        state = structs.NeuronDmaQueueState()
        query = structs.DmaQueueGetState(
            eng_id=3, qid=self.queue, tx=ctypes.addressof(state), rx=ctypes.addressof(state)
        )
        deadline = time.monotonic() + 20
        while len(chip.faults) == before:
            assert self.program.call(uapi.DMA_QUEUE_GET_STATE, query) == 0
            if state.head_pointer == 1:
                return None
            assert time.monotonic() < deadline
        return chip.faults[-1].fault.code

    def close(self) -> None:
        self.tx.close()
        self.rx.close()


def test_own_memory_is_reached(two: tuple[Program, Program]) -> None:
    _, program = two
    host, dram = program.alloc(4096, host=True), program.alloc(4096)
    program.write(host, SECRET)
    ring = Ring(program)
    assert ring.run(program.pa(host), program.pa(dram), len(SECRET)) is None
    assert program.read(dram, len(SECRET)) == SECRET
    ring.close()


def test_descriptors_reach_nothing_of_another_process(two: tuple[Program, Program]) -> None:
    victim, attacker = two
    host, dram = victim.alloc(4096, host=True), victim.alloc(4096)
    for handle in (host, dram):
        victim.write(handle, SECRET)
    loot = attacker.alloc(4096)
    semaphore = CORE_WINDOWS + SEMAPHORE_SET
    targets = [victim.pa(host), victim.pa(dram), semaphore, APB + 0x41038]
    for queue, target in enumerate(targets):
        ring = Ring(attacker, 2 * queue)
        assert ring.run(target, attacker.pa(loot), 4) is ErrorCode.DENIED, hex(target)
        ring.close()
        ring = Ring(attacker, 2 * queue + 1)
        assert ring.run(attacker.pa(loot), target, 4) is ErrorCode.DENIED, hex(target)
        ring.close()
    assert attacker.read(loot, 4096) == bytes(4096)
    assert victim.read(host, len(SECRET)) == victim.read(dram, len(SECRET)) == SECRET


def test_own_cores_are_reached_others_not(two: tuple[Program, Program]) -> None:
    _, program = two
    word = program.alloc(4096, host=True)
    program.write(word, (5).to_bytes(4, "little"))
    ring = Ring(program)
    mine = CORE_WINDOWS + CORE_WINDOW_SIZE + SEMAPHORE_SET
    assert ring.run(program.pa(word), mine, 4) is None
    args = structs.Semaphore(nc_id=1, semaphore_index=0)
    assert program.call(uapi.SEMAPHORE_READ, args) == 0
    assert args.value == 5
    args.nc_id = 0
    for ioctl in (uapi.SEMAPHORE_READ, uapi.SEMAPHORE_WRITE, uapi.SEMAPHORE_INCREMENT):
        program.fails(errno.EACCES, ioctl, args)
    program.fails(errno.EACCES, uapi.EVENT_SET, structs.Event(nc_id=0, value=1))
    program.fails(errno.EACCES, uapi.CINIT_SET_STATE, structs.CinitSet(nc_id=0, state=1))
    program.fails(errno.EACCES, uapi.NC_RESET, structs.DeviceReset(nc_map=uapi.WHOLE_DEVICE))
    program.fails(errno.EACCES, uapi.NOTIFICATIONS_INIT_V1, structs.NotificationsInitV1(size=4096))
    ring.close()


def test_memory_behind_a_pipe_link(machine: Machine, two: tuple[Program, Program]) -> None:
    victim, attacker = two
    there = machine.program(1, pid=attacker.pid)
    others = machine.program(1, pid=victim.pid)
    mine, foreign, loot = there.alloc(4096), others.alloc(4096), attacker.alloc(4096)
    there.write(mine, SECRET)
    ring = Ring(attacker)
    east = through(Window.EAST, there.pa(mine))
    assert ring.run(east, attacker.pa(loot), len(SECRET)) is None
    assert attacker.read(loot, len(SECRET)) == SECRET
    ring.close()
    ring = Ring(attacker, 1)
    assert ring.run(through(Window.EAST, others.pa(foreign)), attacker.pa(loot), 64) is ErrorCode.DENIED
    ring.close()
    there.close()
    others.close()


def test_foreign_handles_and_addresses(two: tuple[Program, Program]) -> None:
    victim, attacker = two
    handle, mine = victim.alloc(4096), attacker.alloc(4096)
    word = ctypes.c_uint64()
    pointer = ctypes.addressof(word)
    for ioctl, args in (
        (uapi.MEM_FREE, structs.MemFree(mem_handle=handle)),
        (uapi.MEM_GET_PA, structs.MemGetPa(mem_handle=handle, pa=pointer)),
        (uapi.MEM_COPY64, structs.MemCopy64(src_mem_handle=handle, dst_mem_handle=mine, size=8)),
        (uapi.MEM_COPY64, structs.MemCopy64(src_mem_handle=mine, dst_mem_handle=handle, size=8)),
        (uapi.MEM_BUF_COPY64, structs.MemBufCopy64(mem_handle=handle, buffer=pointer, size=8)),
        (uapi.MEMSET64, structs.Memset64(mem_handle=handle, size=8)),
        (uapi.MEM_MC_GET_INFO, structs.MemGetMcMmapInfo(pa=victim.pa(handle))),
        (uapi.ACQUIRE_NEURON_DS, structs.NeuronDsInfo(pid=victim.pid)),
    ):
        attacker.fails(errno.EACCES, ioctl, args)
    with fails(errno.EPERM):
        attacker.mmap(4096, victim.pa(handle))
    given = ctypes.c_uint64(victim.pa(handle))
    query = structs.ReadHwCounters(address=ctypes.addressof(given), data=pointer, count=1)
    attacker.fails(errno.EACCES, uapi.READ_HW_COUNTERS, query)


def test_foreign_rings(two: tuple[Program, Program]) -> None:
    victim, attacker = two
    ring = Ring(attacker, 4)
    for ioctl, args in (
        (uapi.DMA_QUEUE_COPY_START, structs.DmaQueueCopyStart(eng_id=3, qid=4, rx_desc_count=1)),
        (uapi.DMA_ACK_COMPLETED, structs.DmaAckCompleted(eng_id=3, qid=4, count=1)),
        (uapi.DMA_QUEUE_INIT, structs.DmaQueueInit(eng_id=3, qid=4, tx_desc_count=32, rx_desc_count=32)),
        (uapi.DMA_ENG_SET_STATE, structs.DmaEngSetState(eng_id=3, state=3)),
        (uapi.DMA_ENG_SET_STATE, structs.DmaEngSetState(eng_id=2, state=3)),
    ):
        victim.fails(errno.EACCES, ioctl, args)
    ring.close()


def test_freed_memory_is_not_seen_again(machine: Machine, two: tuple[Program, Program]) -> None:
    victim, attacker = two
    handle = victim.alloc(4096)
    address = victim.pa(handle)
    victim.write(handle, SECRET)
    kept = victim.mmap(4096, address)
    victim.free(handle)
    first = attacker.alloc(4096)
    assert attacker.pa(first) != address, "still mapped: not given to anybody yet"
    victim.file.unmapped(address)
    kept.close()
    again = attacker.alloc(4096)
    assert attacker.pa(again) == address
    assert attacker.read(again, 4096) == bytes(4096)


def test_grants_survive_a_reset_of_the_chip(machine: Machine) -> None:
    program = machine.program()
    assert program.call(uapi.CRWL_NC_RANGE_MARK, structs.CrwlNcMap(nc_count=4, end_nc_index=3)) == 0
    host, dram = program.alloc(4096, host=True), program.alloc(4096)
    program.write(host, SECRET)
    request = structs.DeviceReset(nc_map=uapi.WHOLE_DEVICE)
    assert program.call(uapi.NC_RESET, request) == 0
    ready = structs.DeviceReady(request_id=program.pid)
    assert program.call(uapi.NC_RESET_READY, ready) == 0
    ring = Ring(program)
    assert ring.run(program.pa(host), program.pa(dram), len(SECRET)) is None
    ring.close()
    program.close()


def test_whatever_descriptors_it_writes(two: tuple[Program, Program]) -> None:
    """Random addresses and lengths: the victim's memory stays as it is, and the chip lives on."""
    victim, attacker = two
    handles = [victim.alloc(4 * MIB), victim.alloc(4 * MIB, host=True)]
    for handle in handles:
        victim.write(handle, SECRET)
    loot = attacker.alloc(4 * MIB)
    addresses = [victim.pa(handle) for handle in handles] + [attacker.pa(loot), APB, CORE_WINDOWS]
    random = itertools.cycle(os.urandom(64))
    for source, destination in itertools.product(addresses, addresses):
        ring = Ring(attacker, 3)
        ring.run(source + next(random) * 4, destination + next(random) * 4, 1 + next(random) * 256)
        ring.close()
    for handle in handles:
        assert victim.read(handle, 4 * MIB) == SECRET + bytes(4 * MIB - len(SECRET))
    assert SECRET[:16] not in attacker.read(loot, 4 * MIB)
