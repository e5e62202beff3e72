# SPDX-License-Identifier: Apache-2.0
"""Rings of applications: what is refused, and what a running one meets (facts, neuron.md §6.5)."""

from __future__ import annotations

import ctypes
import errno
import time

import pytest

from npubox.hw.neuron import descriptors, udma
from npubox.hw.neuron.address import CORE_WINDOW_SIZE, CORE_WINDOWS
from npubox.hw.neuron.core_window import PE_FIFO
from npubox.hw.neuron.notification import ErrorCode
from npubox.uapi import neuron as uapi
from npubox.uapi import neuron_structs as structs
from tests.drivers.neuron.program import Machine, Program

RING = 32


def ring(program: Program, engine: int = 0, queue: int = 0) -> tuple[int, int]:
    """Attach rings in host memory: their handles."""
    tx, rx = program.alloc(RING * 16, host=True), program.alloc(RING * 16, host=True)
    args = structs.DmaQueueInit(
        eng_id=engine, qid=queue, tx_desc_count=RING, rx_desc_count=RING, tx_handle=tx, rx_handle=rx
    )
    assert program.call(uapi.DMA_QUEUE_INIT, args) == 0
    return tx, rx


def fill(program: Program, handle: int, content: bytes, kind: int, at: int = 0) -> int:
    """DMA_COPY_DESCRIPTORS; its result."""
    buffer = ctypes.create_string_buffer(content, len(content))
    args = structs.DmaCopyDescriptors64(
        mem_handle=handle,
        buffer=ctypes.addressof(buffer),
        num_descs=len(content) // 16,
        offset=at,
        queue_type=kind,
    )
    return program.call(uapi.DMA_COPY_DESCRIPTORS64, args)


def start(program: Program, engine: int = 0, queue: int = 0, tx: int = 1, rx: int = 1) -> int:
    args = structs.DmaQueueCopyStart(eng_id=engine, qid=queue, tx_desc_count=tx, rx_desc_count=rx)
    return program.call(uapi.DMA_QUEUE_COPY_START, args)


def fault_of(machine: Machine) -> ErrorCode:
    faults = machine.chips[0].faults
    deadline = time.monotonic() + 20
    while not faults:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return faults.pop().fault.code


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"qid": 16}, errno.EINVAL),
        ({"eng_id": 12}, errno.EINVAL),
        ({"eng_id": 132}, errno.EINVAL),
        ({"tx_desc_count": 72}, errno.EPERM),
        ({"tx_desc_count": 16}, errno.EINVAL),
        ({"rx_desc_count": 1 << 24}, errno.EINVAL),
        ({"rxc_handle": 1}, errno.EPERM),
        ({"tx_handle": 999}, errno.EINVAL),
    ],
)
def test_queues_that_are_refused(program: Program, fields: dict[str, int], error: int) -> None:
    handle = program.alloc(4096, host=True)
    whole = {"tx_desc_count": 32, "rx_desc_count": 32, "tx_handle": handle, "rx_handle": handle, **fields}
    program.fails(error, uapi.DMA_QUEUE_INIT, structs.DmaQueueInit(**whole))


def test_a_batch_stops_at_the_first_that_fails(program: Program) -> None:
    handle = program.alloc(4096, host=True)
    args = structs.DmaQueueInitBatch(count=3)
    for number, entry in enumerate(args.entries[:3]):
        entry.qid, entry.tx_handle, entry.rx_handle = number, handle, handle
        entry.tx_desc_count = entry.rx_desc_count = 32 if number != 1 else 33
        args.entries[number] = entry
    program.fails(errno.EPERM, uapi.DMA_QUEUE_INIT_BATCH, args)
    queues = program.file.device.queues
    assert [queues.owner(0, number) for number in range(3)] == [program.pid, 0, 0]
    args.count = 256
    program.fails(errno.E2BIG, uapi.DMA_QUEUE_INIT_BATCH, args)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"qid": 5}, errno.EPERM),
        ({"qid": 16}, errno.EPERM),
        ({"eng_id": 132}, errno.EINVAL),
        ({"tx_desc_count": 33}, errno.EPERM),
        ({"rx_desc_count": 33}, errno.EPERM),
        ({"rx_desc_count": 0}, errno.EINVAL),
    ],
)
def test_starts_that_are_refused(program: Program, fields: dict[str, int], error: int) -> None:
    ring(program)
    args = structs.DmaQueueCopyStart(**{"tx_desc_count": 1, "rx_desc_count": 1, **fields})
    program.fails(error, uapi.DMA_QUEUE_COPY_START, args)


def test_descriptors_that_are_refused(program: Program) -> None:
    tx, _ = ring(program)
    nowhere = descriptors.pack_tx(1 << 46 | 0x7F00_0000, 64, 1)
    good = descriptors.pack_tx(0, 64, 1)
    for content, kind, at, error in (
        (nowhere, 0, 0, errno.EINVAL),
        (good, 2, 0, errno.EPERM),
        (good, 3, 0, errno.EINVAL),
        (good, 0, 4096, errno.EINVAL),
        (good, 0, 4081, errno.EINVAL),
    ):
        with pytest.raises(OSError, match=r"\w") as caught:
            fill(program, tx, content, kind, at)
        assert caught.value.errno == error
    west = descriptors.pack_tx(3 << 46 | 0x7F00_0000, 64, 1)
    assert fill(program, tx, west, 0) == 0, "addresses of neighbours are not looked at"


def test_acknowledging(program: Program) -> None:
    ring(program)
    assert program.call(uapi.DMA_ACK_COMPLETED, structs.DmaAckCompleted(count=3)) == 0
    program.fails(errno.EINVAL, uapi.DMA_ACK_COMPLETED, structs.DmaAckCompleted(qid=9, count=3))
    handle = program.alloc(4096, host=True)
    odd = structs.DmaQueueInit(tx_desc_count=80, rx_desc_count=80, tx_handle=handle, rx_handle=handle)
    assert program.call(uapi.DMA_QUEUE_INIT, odd) == 0
    program.fails(errno.EINVAL, uapi.DMA_ACK_COMPLETED, structs.DmaAckCompleted(count=3))


def test_ring_memory_freed_while_it_runs(machine: Machine, program: Program) -> None:
    """The engine stops at its next fetch and tells; the chip and others live on."""
    tx, rx = ring(program)
    device = program.alloc(4096)
    for handle, kind, pack in ((tx, 0, descriptors.pack_tx), (rx, 1, descriptors.pack_rx)):
        fill(program, handle, pack(program.pa(device), 64, 1), kind)
    assert start(program) == 0
    program.free(tx)
    assert start(program) == 0
    assert fault_of(machine) is ErrorCode.RING_FETCH
    other = machine.program()
    handle = other.alloc(4096)
    other.write(handle, b"lives")
    assert other.read(handle, 5) == b"lives"
    other.close()


@pytest.mark.parametrize(
    ("tx", "code"),
    [
        (descriptors.pack_tx(0, 64, 2), ErrorCode.RING_ID),
        (descriptors.pack_tx(1 << 40, 64, 1), ErrorCode.ADDRESS),
        (descriptors.pack_tx(0, 64, 1, meta=0x0108_0004), ErrorCode.TRANSFORM),
    ],
    ids=["lap", "address", "transform"],
)
def test_what_the_engine_finds_wrong(machine: Machine, program: Program, tx: bytes, code: ErrorCode) -> None:
    tx_handle, rx_handle = ring(program, 1, 4)
    fill(program, tx_handle, tx, 0)
    fill(program, rx_handle, descriptors.pack_rx(0, 64, 1), 1)
    assert start(program, 1, 4) == 0
    assert fault_of(machine) is code
    ring(program, 1, 4)
    fill(program, program.alloc(4096), bytes(16), 0)


def test_a_ring_that_is_longer_than_its_memory(machine: Machine, program: Program) -> None:
    """What lies in the memory is executed, then the engine stops."""
    rx, data = program.alloc(8192, host=True), program.alloc(4096, host=True)
    tx, target = program.alloc(4096, host=True), program.alloc(4096)  # nothing lies behind the last one
    args = structs.DmaQueueInit(
        eng_id=7, qid=1, tx_desc_count=512, rx_desc_count=512, tx_handle=tx, rx_handle=rx
    )
    assert program.call(uapi.DMA_QUEUE_INIT, args) == 0
    program.write(data, bytes(range(256)) * 16)
    fill(program, tx, b"".join(descriptors.pack_tx(program.pa(data) + 16 * i, 16, 1) for i in range(256)), 0)
    fill(
        program, rx, b"".join(descriptors.pack_rx(program.pa(target) + 16 * i, 16, 1) for i in range(256)), 1
    )
    assert start(program, 7, 1, 300, 300) == 0
    assert fault_of(machine) is ErrorCode.RING_FETCH
    copied = program.read(target, 4096)
    assert copied in (bytes(range(256)) * 16, bytes(4096)), "all that is there, or nothing, as it is fetched"
    program.fails(
        errno.EINVAL, uapi.DMA_COPY_DESCRIPTORS64, structs.DmaCopyDescriptors64(mem_handle=tx, num_descs=257)
    )


def test_state_of_engine_and_queue(program: Program) -> None:
    tx, rx = ring(program, 1, 3)
    state, found = structs.NeuronDmaEngState(), (structs.NeuronDmaQueueState(), structs.NeuronDmaQueueState())
    args = structs.DmaEngGetState(eng_id=1, state=ctypes.addressof(state))
    assert program.call(uapi.DMA_ENG_GET_STATE, args) == 0
    assert (state.revision_id, state.max_queues, state.num_queues) == (4, 16, 16)
    query = structs.DmaQueueGetState(
        eng_id=1, qid=3, tx=ctypes.addressof(found[0]), rx=ctypes.addressof(found[1])
    )
    assert program.call(uapi.DMA_QUEUE_GET_STATE, query) == 0
    assert [(one.base_addr, one.length, one.sw_status) for one in found] == [
        (program.pa(tx), RING, 2),
        (program.pa(rx), RING, 2),
    ]


def test_a_model_start_is_counted_where_its_instructions_go(program: Program) -> None:
    tx, rx = ring(program, 3)
    fifo = CORE_WINDOWS + 2 * CORE_WINDOW_SIZE + PE_FIFO + 0x100
    fill(program, tx, descriptors.pack_tx(0, 64, 1), 0)
    fill(program, rx, descriptors.pack_rx(fifo, 64, 1), 1)
    assert start(program, 3) == 0
    counts = []
    for core in range(4):
        args = structs.NcModelStartedCount(nc_id=core)
        assert program.call(uapi.NC_MODEL_STARTED_COUNT, args) == 0
        counts.append(args.started_count)
    assert counts == [0, 0, 1, 0]


def test_queues_of_a_process_that_goes(machine: Machine) -> None:
    program = machine.program()
    ring(program, 2, 1)
    program.close()
    device = machine.driver.devices[0]
    assert device.queues.owner(2, 1) == 0
    chip, base = machine.chips[0], udma.engine_base(2) + udma.m2s_queue(1)
    assert chip.read32(0, base + udma.QueueReg.RING_LENGTH) == 64, "the dummy ring"
