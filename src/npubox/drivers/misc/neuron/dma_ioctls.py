# SPDX-License-Identifier: Apache-2.0
"""ioctls on DMA engines and on the rings of applications (facts, neuron.md §3.2, §6.5)."""

from __future__ import annotations

import errno

from npubox.drivers.misc.neuron.call import Call, ioctl, read_registers
from npubox.drivers.misc.neuron.copy_ioctls import copy_in, copy_out, holding
from npubox.drivers.misc.neuron.memory import Chunk
from npubox.drivers.misc.neuron.user_queues import UserQueue, UserRing, check_engine
from npubox.drivers.misc.neuron.work import Steps, Work
from npubox.hw.neuron import descriptors, udma
from npubox.hw.neuron.address import APB, PORT_1, WINDOW_SHIFT
from npubox.hw.neuron.udma import ChangeState, EngineReg, QueueReg
from npubox.uapi import neuron as uapi
from npubox.uapi import neuron_structs as structs
from npubox.uapi.neuron import EngineState, EngineStatus, QueueType

ENGINES_OF_MODULE = 132  # of any generation
MOST_BATCHED = 255
SW_STATUS_ENABLED = 2
CHANGES = {
    EngineState.DISABLE: ChangeState.DISABLE,
    EngineState.NORMAL: ChangeState.NORMAL,
    EngineState.ABORT: ChangeState.ABORT,
}
QUEUE_STATE_ORDER = (
    QueueReg.STATUS,
    QueueReg.RING_LENGTH,
    QueueReg.RING_BASE_HI,
    QueueReg.RING_BASE_LO,
    QueueReg.COMPLETION_BASE_HI,
    QueueReg.COMPLETION_BASE_LO,
    QueueReg.HEAD,
    QueueReg.TAIL,
    QueueReg.COMPLETION_HEAD,
)
CopyArgs = structs.DmaCopyDescriptors | structs.DmaCopyDescriptors64


@ioctl(uapi.DMA_ENG_SET_STATE, attached=True)
def dma_eng_set_state(call: Call, args: structs.DmaEngSetState) -> None:
    check_engine(args.eng_id)
    core = args.eng_id // udma.ENGINES_PER_CORE
    call.check_core(core)
    if call.driver.isolate and args.eng_id == udma.memcpy_engine(core):
        raise OSError(errno.EACCES, f"engine {args.eng_id} copies for everybody")
    try:
        change = CHANGES[EngineState(args.state)]
    except ValueError:
        if call.strict:
            raise OSError(errno.EINVAL, f"{args.state} is no state of an engine") from None
        return  # the module only logs
    call.device.engines.change_state(args.eng_id, change)


@ioctl(uapi.DMA_ENG_GET_STATE)
def dma_eng_get_state(call: Call, args: structs.DmaEngGetState) -> Work:
    check_engine(args.eng_id)
    base = APB + udma.engine_base(args.eng_id)
    registers = (
        EngineReg.M2S_STATE,
        EngineReg.S2M_STATE,
        EngineReg.S2M_STREAM_CFG,
        udma.s2m_queue(0) + QueueReg.CFG,
    )

    def steps() -> Steps[structs.NeuronDmaEngState]:
        values = yield from read_registers(call, [base + register for register in registers])
        return structs.NeuronDmaEngState(
            revision_id=udma.DMA_VERSION,
            max_queues=udma.QUEUES,
            num_queues=udma.QUEUES,
            tx_state=_status(values[0]),
            rx_state=_status(values[1]),
        )

    return call.work(steps(), lambda state: call.write(args.state, bytes(state)))


def _status(register: int) -> EngineStatus:
    fields = {register >> shift & 3 for shift in udma.STATE_FIELD_SHIFTS}
    if udma.StateField.ABORT in fields:
        return EngineStatus.ABORT
    return EngineStatus.NORMAL if udma.StateField.NORMAL in fields else EngineStatus.IDLE


@ioctl(uapi.DMA_QUEUE_INIT, attached=True)
def dma_queue_init(call: Call, args: structs.DmaQueueInit) -> None:
    _initialise(call, args)


@ioctl(uapi.DMA_QUEUE_INIT_BATCH)
def dma_queue_init_batch(call: Call, args: structs.DmaQueueInitBatch) -> None:
    """Stops at the first that fails; those before it stay."""
    if args.count > MOST_BATCHED:
        raise OSError(errno.E2BIG, f"{args.count} queues at once: at most {MOST_BATCHED}")
    for entry in args.entries[: args.count]:
        _initialise(call, entry)


def _initialise(call: Call, args: structs.DmaQueueInit) -> None:
    if args.qid >= udma.QUEUES:
        raise OSError(errno.EINVAL, f"an engine has no queue {args.qid}")
    check_engine(args.eng_id)
    call.check_core(args.eng_id // udma.ENGINES_PER_CORE)
    if call.strict and _is_drivers(args.eng_id, args.qid):
        raise OSError(errno.EBUSY, f"queue {args.qid} of engine {args.eng_id} is the driver's own")
    if args.rxc_handle:
        raise OSError(errno.EPERM, "completion rings are not supported")
    tx = UserRing(_ring_chunk(call, args.tx_handle), args.tx_desc_count, args.axi_port)
    rx = UserRing(_ring_chunk(call, args.rx_handle), args.rx_desc_count, args.axi_port)
    call.driver.isolation.queue_attached(call.device, args.eng_id, args.qid, call.pid)
    call.device.queues.initialise(args.eng_id, args.qid, UserQueue(call.pid, tx, rx))


def _is_drivers(engine: int, number: int) -> bool:
    return number == udma.MEMCPY_QUEUE and engine == udma.memcpy_engine(engine // udma.ENGINES_PER_CORE)


def _ring_chunk(call: Call, handle: int) -> Chunk | None:
    if not handle:
        return None
    try:
        return call.chunk(handle)
    except OSError:
        if call.strict:
            raise
        return None  # to the module an unknown handle is no ring


@ioctl(uapi.DMA_QUEUE_COPY_START)
def dma_queue_copy_start(call: Call, args: structs.DmaQueueCopyStart) -> None:
    if args.eng_id >= ENGINES_OF_MODULE:
        raise OSError(errno.EINVAL, f"there is no DMA engine {args.eng_id}")
    _check_queue_owner(call, args.eng_id, args.qid)
    queues = call.device.queues
    started = queues.start(args.eng_id, args.qid, args.tx_desc_count, args.rx_desc_count)
    if started is not None:
        call.device.cores[started].models_started += 1
    call.device.port.lend()  # a short copy is over sooner than a thread of the chip's wakes up


@ioctl(uapi.DMA_ACK_COMPLETED, attached=True)
def dma_ack_completed(call: Call, args: structs.DmaAckCompleted) -> None:
    _check_queue_owner(call, args.eng_id, args.qid)
    call.device.queues.acknowledge(args.eng_id, args.qid, args.count)


def _check_queue_owner(call: Call, engine: int, number: int) -> None:
    if call.driver.isolate and call.device.queues.owner(engine, number) != call.pid:
        raise OSError(errno.EACCES, f"queue {number} of engine {engine} is another process's")


@ioctl(uapi.DMA_QUEUE_GET_STATE)
def dma_queue_get_state(call: Call, args: structs.DmaQueueGetState) -> Work:
    _check_queue(args.eng_id, args.qid)
    _check_queue_owner(call, args.eng_id, args.qid)
    base = APB + udma.engine_base(args.eng_id)

    def steps() -> Steps[list[structs.NeuronDmaQueueState]]:
        states = []
        for queue in (udma.m2s_queue(args.qid), udma.s2m_queue(args.qid)):
            addresses = [base + queue + register for register in QUEUE_STATE_ORDER]
            states.append(_queue_state((yield from read_registers(call, addresses, errno.EIO))))
        return states

    def then(states: list[structs.NeuronDmaQueueState]) -> None:
        for pointer, state in zip((args.tx, args.rx), states, strict=True):
            call.write(pointer, bytes(state))

    return call.work(steps(), then)


def _queue_state(values: list[int]) -> structs.NeuronDmaQueueState:
    status, length, base_hi, base_lo, completion_hi, completion_lo, head, tail, completion = values
    return structs.NeuronDmaQueueState(
        hw_status=status,
        sw_status=SW_STATUS_ENABLED,
        base_addr=base_hi << 32 | base_lo,
        length=length,
        head_pointer=head & udma.POINTER_MASK,
        tail_pointer=tail & udma.POINTER_MASK,
        completion_base_addr=completion_hi << 32 | completion_lo,
        completion_head=completion & udma.POINTER_MASK,
    )


@ioctl(uapi.DMA_COPY_DESCRIPTORS, attached=True)
@ioctl(uapi.DMA_COPY_DESCRIPTORS64)
def dma_copy_descriptors(call: Call, args: CopyArgs) -> int | Work:
    if args.queue_type == QueueType.COMPLETION:
        raise OSError(errno.EPERM, "completion rings are not supported")
    if args.queue_type not in (QueueType.TX, QueueType.RX):
        raise OSError(errno.EINVAL, f"there are no queues of type {args.queue_type}")
    chunk = call.chunk(args.mem_handle)
    size = args.num_descs * descriptors.SIZE
    chunk.check_range(args.offset, size)
    data = call.read(args.buffer, size)
    for _, _, address in descriptors.FORMAT.iter_unpack(data):
        _check_host_address(call, address)
    if args.queue_type == QueueType.RX:
        call.device.queues.note_destinations(chunk, data)
    if chunk.host:
        call.device.memory.write(chunk, args.offset, data)
        return 0
    queue = call.device.copy_queue(chunk.core)
    return call.work(holding(call, copy_in(call, queue, data, chunk.pa + args.offset), chunk))


def _check_host_address(call: Call, address: int) -> None:
    """EINVAL for host memory outside the allocations of the devices that the process is attached to."""
    if address >> WINDOW_SHIFT & 3 != 1:
        return
    for device in call.driver.devices:
        if call.pid in device.processes:
            chunk = device.memory.at(address)
            if chunk is not None and chunk.host:
                call.check_owner(chunk)
                return
    raise OSError(errno.EINVAL, f"nothing is allocated at the descriptor's host address {address:#x}")


@ioctl(uapi.DMA_DESCRIPTOR_COPYOUT)
def dma_descriptor_copyout(call: Call, args: structs.DmaDescriptorCopyout) -> Work:
    """Descriptors as they lie in the ring that the hardware has."""
    if not args.count or args.type not in (QueueType.TX, QueueType.RX):
        raise OSError(errno.EINVAL, f"no {args.count} descriptors of a queue of type {args.type}")
    _check_queue(args.eng_id, args.qid)
    _check_queue_owner(call, args.eng_id, args.qid)
    return call.work(_descriptors(call, args), lambda data: call.write(args.buffer, data))


def _descriptors(call: Call, args: structs.DmaDescriptorCopyout) -> Steps[bytes]:
    queue = udma.m2s_queue(args.qid) if args.type == QueueType.TX else udma.s2m_queue(args.qid)
    base = APB + udma.engine_base(args.eng_id) + queue
    registers = (QueueReg.RING_LENGTH, QueueReg.RING_BASE_HI, QueueReg.RING_BASE_LO)
    length, high, low = yield from read_registers(call, [base + register for register in registers])
    address = high << 32 | low
    memory = call.device.memory
    # The module does not find a ring that is reached through the second port.
    chunk = memory.at(address & ~PORT_1 if call.strict and not address >> WINDOW_SHIFT else address)
    if chunk is None:
        raise OSError(errno.EINVAL, f"the ring at {address:#x} is no allocation of this device")
    if args.start_index + args.count > length:
        raise OSError(errno.EFBIG, f"the ring has {length} descriptors")
    size = args.count * descriptors.SIZE
    start = args.start_index * descriptors.SIZE
    if chunk.host:
        return memory.read(chunk, address - chunk.pa + start, size)
    if not call.strict:
        start = 0  # the module ignores where to begin in a ring in device memory
    copies = call.device.copy_queue(chunk.core)
    return (yield from holding(call, copy_out(call, copies, address + start, size), chunk))


def _check_queue(engine: int, number: int) -> None:
    """EINVAL for what the chip does not have; the module does not look."""
    check_engine(engine)
    if number >= udma.QUEUES:
        raise OSError(errno.EINVAL, f"an engine has no queue {number}")
