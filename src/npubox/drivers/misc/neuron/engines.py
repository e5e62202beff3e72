# SPDX-License-Identifier: Apache-2.0
"""The DMA engines: how they and their queues are set up, write by write (facts, neuron.md §6.6)."""

from __future__ import annotations

from collections.abc import Iterator

from npubox.bus.port import PciDevice
from npubox.hw.neuron import udma
from npubox.hw.neuron.pci import Bar
from npubox.hw.neuron.udma import EngineReg, Primary, QueueReg, Secondary, TdmaReg

QUEUE_ON_AT_FIRST = 0x0003_0000
QUEUE_ON = 0x0303_0000
MASK = 0xFFFF_FFFF
Writes = Iterator[tuple[int, int]]


class Engines:
    """Sets engines and queues up. It never reads a register: it remembers which engines it did before."""

    def __init__(self, port: PciDevice) -> None:
        self._port = port
        self._known: set[int] = set()

    def initialise(self, engine: int) -> None:
        """All 126 writes of one engine."""
        enable = QUEUE_ON if engine in self._known else QUEUE_ON_AT_FIRST
        self._known.add(engine)
        self._write(udma.engine_base(engine), _engine_writes(enable))
        self._write(udma.tdma_base(engine), iter(_TDMA))

    def initialise_queue(self, engine: int, queue: int, tx: tuple[int, int], rx: tuple[int, int]) -> None:
        """Reset a queue pair and give it its rings: (device address, descriptors) each. 14 writes."""
        base = udma.engine_base(engine)
        m2s = base + udma.m2s_queue(queue)
        s2m = base + udma.s2m_queue(queue)
        self._write(m2s, _queue_writes(*tx, QueueReg.M2S_SW_CTRL, QueueReg.M2S_COMP_CFG))
        self._write(s2m, _queue_writes(*rx, QueueReg.S2M_SW_CTRL, QueueReg.S2M_COMP_CFG))

    def ring(self, engine: int, queue: int, tx: int, rx: int) -> None:
        """Announce descriptors: destinations first. 0 sources announce none."""
        base = udma.engine_base(engine)
        self._port.write32(Bar.APB, base + udma.s2m_queue(queue) + QueueReg.TAIL_INCREMENT, rx)
        if tx:
            self._port.write32(Bar.APB, base + udma.m2s_queue(queue) + QueueReg.TAIL_INCREMENT, tx)

    def change_state(self, engine: int, value: udma.ChangeState) -> None:
        base = udma.engine_base(engine)
        self._port.write32(Bar.APB, base + EngineReg.M2S_CHANGE_STATE, value)
        self._port.write32(Bar.APB, base + EngineReg.S2M_CHANGE_STATE, value)

    def _write(self, base: int, writes: Writes) -> None:
        for offset, value in writes:
            self._port.write32(Bar.APB, base + offset, value)


_TDMA = (
    (TdmaReg.READ_REORDER, 1),
    (TdmaReg.WRITE_REORDER, 0xFFFF_FFFE),  # off: the hardware's reordering is defective
    (TdmaReg.EVENT_ACCELERATION, 1),
)
_LIMITS_FIRST = (
    (EngineReg.M2S_DATA_CFG, 0x0100_0400),
    (EngineReg.M2S_OSTAND_CFG, 0x2080_8080),
    (EngineReg.AXI_TIMEOUT, 100_000_000),
    (EngineReg.M2S_APPLICATION_ACK, 0),
    (EngineReg.M2S_CFG_LEN, 0x010F_FFFF),
    (EngineReg.M2S_STREAM_CFG, 0x0000_0102),
)
_LIMITS_LAST = (
    (EngineReg.S2M_OSTAND_CFG_RD, 0x0040_0080),
    (EngineReg.S2M_OSTAND_CFG_WR, 0x4080_4080),
    (EngineReg.SPARE, udma.SPARE_COMPLETION_HOLDS),
)
_PACKETS = (
    (EngineReg.S2M_COMP_CFG_1C, 0x0000_1004),
    (EngineReg.M2S_DESC_PREF_CFG_2, 0x0001_0080),
    (EngineReg.M2S_DESC_PREF_CFG_3, 0x0000_8081),
)
_GROUP_CONTROL = 0x28


def _engine_writes(enable: int) -> Writes:
    for queue in range(udma.QUEUES):
        yield udma.m2s_queue(queue) + QueueReg.CFG, enable
        yield udma.s2m_queue(queue) + QueueReg.CFG, enable
    yield from _LIMITS_FIRST
    for queue in range(udma.QUEUES):
        yield udma.vmpr(queue), MASK
    yield EngineReg.S2M_APPLICATION_ACK, 0
    for queue in range(udma.QUEUES):
        for select in (4, 8, 12):
            yield udma.vmpr(queue) + select, MASK
    yield from _LIMITS_LAST
    yield from _error_writes(udma.M2S_ERRORS, 0xF000_0000, 0xFFFF_FFC0, 0xFFFF_FAFF)
    yield from _error_writes(udma.S2M_ERRORS, 0x0000_10F8, 0xFFFF_F03F, 0xFFFF_F9FF)
    yield from _PACKETS


def _error_writes(group: int, errors: int, parity: int, primary: int) -> Writes:
    """Let a group's errors abort: which ones, which parity errors, and their bit of the primary group."""
    own = udma.secondary_group(group)
    shared = udma.secondary_group(udma.PARITY_ERRORS)
    main = udma.primary_group(3)
    yield own + Secondary.CONTROL, _GROUP_CONTROL
    yield main + Primary.CONTROL, _GROUP_CONTROL
    yield own + Secondary.ABORT_MASK, errors
    yield shared + Secondary.ABORT_MASK, parity
    yield own + Secondary.MASK_CLEAR, errors
    yield shared + Secondary.MASK_CLEAR, parity
    yield main + Primary.MASK_CLEAR, primary


def _queue_writes(ring: int, length: int, control: QueueReg, completion: QueueReg) -> Writes:
    yield QueueReg.CFG, udma.QUEUE_CFG_RESET
    yield control, udma.SW_CTRL_RESET
    yield QueueReg.RING_BASE_LO, ring & MASK
    yield QueueReg.RING_BASE_HI, ring >> 32
    yield QueueReg.RING_LENGTH, length
    yield completion, 0
    yield QueueReg.CFG, QUEUE_ON
