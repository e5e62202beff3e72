# SPDX-License-Identifier: Apache-2.0
"""ioctls on registers: BARs, counters, semaphores, events, metrics (facts, neuron.md §3.2, §8, §10.2)."""

from __future__ import annotations

import array
import errno
from collections.abc import Sequence

from npubox.drivers.misc.neuron.call import Call, ioctl, read_registers
from npubox.drivers.misc.neuron.info_ioctls import bar_address
from npubox.drivers.misc.neuron.work import Steps, Work
from npubox.hw.neuron import core_window, misc_ram, udma
from npubox.hw.neuron.address import (
    APB,
    CORE_WINDOW_SIZE,
    CORE_WINDOWS,
    CORES,
    PORT_1,
    Window,
    dram_bar_offset,
    window_of,
)
from npubox.hw.neuron.misc_ram import MiscReg
from npubox.hw.neuron.pci import BAR_SIZE, Bar
from npubox.hw.neuron.udma import QueueReg
from npubox.uapi import neuron as uapi
from npubox.uapi import neuron_structs as structs

MOST_REGISTERS = 100
WORD = 4
EVENTS_OF_MODULE = core_window.EVENT_COUNT + 1  # the module lets one more pass
INDEX_BITS_OF_MODULE = 0xFFFF
PROTECTED_QUEUE_REGISTERS = frozenset(
    {
        QueueReg.RING_BASE_LO,
        QueueReg.RING_BASE_HI,
        QueueReg.COMPLETION_BASE_LO,
        QueueReg.COMPLETION_BASE_HI,
        QueueReg.TAIL_INCREMENT,
    }
)
PROTECTED_MISC_REGISTERS = frozenset(
    {
        MiscReg.TPB_RESET_MAP,
        MiscReg.RESET,
        MiscReg.REQUEST_HI,
        MiscReg.REQUEST_LO,
        MiscReg.RESPONSE_HI,
        MiscReg.RESPONSE_LO,
        MiscReg.DOORBELL,
    }
)
RUNTIME_WORDS = (range(0x0C0, 0x0F4), range(0x1A0, 0x1D4))
"""Of MISC RAM, what the runtime keeps for itself through BAR access."""
_PROTECTED_IN_QUEUES = frozenset(
    udma.engine_base(engine) + queue + register
    for engine in range(udma.ENGINES)
    for number in range(udma.QUEUES)
    for queue in (udma.m2s_queue(number), udma.s2m_queue(number))
    for register in PROTECTED_QUEUE_REGISTERS
)


def _u64s(call: Call, address: int, count: int) -> list[int]:
    return array.array("Q", call.read(address, 8 * count)).tolist()


def _u32s(call: Call, address: int, count: int) -> list[int]:
    return array.array("I", call.read(address, 4 * count)).tolist()


def _write_words(call: Call, address: int, values: Sequence[int]) -> None:
    call.write(address, array.array("I", values).tobytes())


@ioctl(uapi.BAR_READ)
def barread_registers(call: Call, args: structs.BarRw) -> Work:
    if args.bar not in (Bar.APB, Bar.AXI):
        raise OSError(errno.EINVAL, f"BAR {args.bar} has no registers")
    if not 0 < args.count <= MOST_REGISTERS:  # for 0 the module crashes the kernel
        raise OSError(errno.EINVAL, f"1 to {MOST_REGISTERS} registers are read at once, not {args.count}")
    if args.bar == Bar.APB:
        offsets = [
            given - bar_address(call.device, Bar.APB) for given in _u64s(call, args.address, args.count)
        ]
        base = APB
    else:
        (first,) = _u64s(call, args.address, 1)
        offset = first - bar_address(call.device, Bar.AXI)
        offsets = [offset + WORD * index for index in range(args.count)]
        base = CORE_WINDOWS
    if not all(0 <= offset <= BAR_SIZE[args.bar] - WORD for offset in offsets):
        raise OSError(errno.EPERM, f"an address is outside BAR {args.bar}")
    addresses = [base + offset for offset in offsets]
    _check_readable(call, addresses)
    return call.work(read_registers(call, addresses), lambda values: _write_words(call, args.data, values))


@ioctl(uapi.BAR_WRITE, attached=True)
def bar_write(call: Call, args: structs.BarRw) -> None:
    """Writes before one that is refused stay done."""
    if args.bar not in (Bar.APB, Bar.AXI) or args.count > MOST_REGISTERS:
        raise OSError(errno.EINVAL, f"no {args.count} registers of BAR {args.bar} are written at once")
    base = bar_address(call.device, Bar(args.bar))
    values = _u32s(call, args.data, args.count)
    if args.bar == Bar.APB:
        offsets = [given - base for given in _u64s(call, args.address, args.count)]
    else:
        (first,) = _u64s(call, args.address, 1)
        offsets = [first - base + WORD * index for index in range(args.count)]
    for offset, value in zip(offsets, values, strict=True):
        _check_writable(call, Bar(args.bar), offset)
        call.device.port.write32(args.bar, offset, value)


def _check_writable(call: Call, bar: Bar, offset: int) -> None:
    if not 0 <= offset <= BAR_SIZE[bar] - WORD or offset % WORD:
        raise OSError(errno.EINVAL, f"{offset:#x} is no register of BAR {bar}")
    if bar is Bar.AXI:
        call.check_core(offset // CORE_WINDOW_SIZE)
        return
    misc = offset - misc_ram.BASE
    protected = offset in _PROTECTED_IN_QUEUES or (call.strict and misc in PROTECTED_MISC_REGISTERS)
    if protected:
        raise OSError(errno.EINVAL, f"BAR 0 offset {offset:#x} is the driver's own")
    if call.driver.isolate and not any(misc in words for words in RUNTIME_WORDS):
        raise OSError(errno.EACCES, f"BAR 0 offset {offset:#x} is everybody's: only the driver writes it")


def _check_readable(call: Call, addresses: Sequence[int]) -> None:
    """Where processes are kept apart: registers, this process's cores and its memory."""
    if not call.driver.isolate:
        return
    for given in addresses:
        address = given & ~PORT_1
        if window_of(given) is not Window.LOCAL:
            raise OSError(errno.EACCES, f"{given:#x} is not on this chip")
        if dram_bar_offset(address) is not None:
            chunk = call.device.memory.at(address)
            if chunk is None or chunk.owner != call.pid:
                raise OSError(errno.EACCES, f"the memory at {address:#x} is not this process's")
        elif CORE_WINDOWS <= address < CORE_WINDOWS + CORES * CORE_WINDOW_SIZE:
            call.check_core((address - CORE_WINDOWS) // CORE_WINDOW_SIZE)


@ioctl(uapi.READ_HW_COUNTERS)
def read_hw_counters(call: Call, args: structs.ReadHwCounters) -> Work:
    """Any 32-bit words by device address, neighbours' too."""
    if args.count > 0xFFFF:
        raise OSError(errno.EINVAL, f"{args.count} words are too many for one message")
    addresses = _u64s(call, args.address, args.count)
    _check_readable(call, addresses)
    return call.work(read_registers(call, addresses), lambda values: _write_words(call, args.data, values))


@ioctl(uapi.POST_METRIC, attached=True)
def post_metric(call: Call, args: structs.PostMetric) -> Work:
    if args.data_size > misc_ram.METRICS_SIZE:
        raise OSError(errno.E2BIG, f"{args.data_size} bytes of metrics: at most {misc_ram.METRICS_SIZE}")
    data = call.read(args.data, args.data_size)

    def steps() -> Steps[None]:
        try:
            yield from call.device.fwio.post_metrics(data)
        except OSError as error:
            raise OSError(errno.EPERM, f"the metrics were not posted: {error}") from error

    return call.work(steps())


def _semaphore(call: Call, args: structs.Semaphore, register: int) -> int:
    """BAR 2 offset of one of a semaphore's registers. E2BIG, EINVAL."""
    index = args.semaphore_index if call.strict else args.semaphore_index & INDEX_BITS_OF_MODULE
    if args.nc_id >= CORES:
        raise OSError(errno.E2BIG, f"the device has no core {args.nc_id}")
    if index >= core_window.SEMAPHORE_COUNT:
        raise OSError(errno.EINVAL, f"a core has no semaphore {index}")
    call.check_core(args.nc_id)
    return int(args.nc_id * CORE_WINDOW_SIZE + register + WORD * index)


@ioctl(uapi.SEMAPHORE_INCREMENT)
def semaphore_increment(call: Call, args: structs.Semaphore) -> None:
    _write(call, _semaphore(call, args, core_window.SEMAPHORE_INCREMENT), args.value)


@ioctl(uapi.SEMAPHORE_DECREMENT)
def semaphore_decrement(call: Call, args: structs.Semaphore) -> None:
    _write(call, _semaphore(call, args, core_window.SEMAPHORE_DECREMENT), args.value)


@ioctl(uapi.SEMAPHORE_WRITE)
def semaphore_write(call: Call, args: structs.Semaphore) -> None:
    _write(call, _semaphore(call, args, core_window.SEMAPHORE_SET), args.value)


@ioctl(uapi.SEMAPHORE_READ, fills=True)
def semaphoreread_registers(call: Call, args: structs.Semaphore) -> Work:
    return _read_into(call, args, _semaphore(call, args, core_window.SEMAPHORE_READ))


def _event(call: Call, args: structs.Event) -> int:
    index = args.event_index if call.strict else args.event_index & INDEX_BITS_OF_MODULE
    if index >= (core_window.EVENT_COUNT if call.strict else EVENTS_OF_MODULE):
        raise OSError(errno.EINVAL, f"a core has no event {index}")
    if args.nc_id >= CORES:  # the module does not look
        raise OSError(errno.E2BIG, f"the device has no core {args.nc_id}")
    call.check_core(args.nc_id)
    return int(args.nc_id * CORE_WINDOW_SIZE + core_window.EVENTS + WORD * index)


@ioctl(uapi.EVENT_SET)
def event_set(call: Call, args: structs.Event) -> None:
    _write(call, _event(call, args), args.value)


@ioctl(uapi.EVENT_GET, fills=True)
def event_get(call: Call, args: structs.Event) -> Work:
    return _read_into(call, args, _event(call, args))


def _write(call: Call, offset: int, value: int) -> None:
    call.device.port.write32(Bar.AXI, offset, value)


def _read_into(call: Call, args: structs.Semaphore | structs.Event, offset: int) -> Work:
    def steps() -> Steps[None]:
        (args.value,) = yield from read_registers(call, [CORE_WINDOWS + offset])

    return call.work(steps())
