# SPDX-License-Identifier: Apache-2.0
"""PUTILS: a core's notification queues, rings that the chip writes (facts, neuron.md §7)."""

from __future__ import annotations

import logging

from npubox.bus.port import Clock
from npubox.bus.virtual import DmaFault
from npubox.devices.neuron.address_map import AddressMap
from npubox.hw.neuron import notification as entry
from npubox.hw.neuron.notification import ErrorCode
from npubox.hw.neuron.putils import ENGINE_INSTANCES, NotificationType, QueueRegs, queue_registers

_log = logging.getLogger(__name__)


class _Queue:
    """One ring: where the next entry goes. It runs while its size is not 0."""

    def __init__(self, kind: NotificationType, engine: int) -> None:
        self.kind = kind
        self.engine = engine
        self.registers = queue_registers(kind, engine)
        self.base = 0
        self.size = 0
        self.head = 0
        self.phase = entry.FIRST_PHASE


class Putils:
    """The block of one core. Everything happens under the chip's lock."""

    def __init__(self, core: int, memory: AddressMap, clock: Clock) -> None:
        self._core = core
        self._memory = memory
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        self._registers: dict[int, int] = {}
        kinds = [(kind, 0) for kind in (NotificationType.EVENT, NotificationType.ERROR)]
        kinds += [
            (kind, engine)
            for kind in (NotificationType.TRACE, NotificationType.NOTIFY)
            for engine in range(ENGINE_INSTANCES)
        ]
        self._queues = {kind_engine: _Queue(*kind_engine) for kind_engine in kinds}
        self._by_size = {queue.registers.size: queue for queue in self._queues.values()}
        self.dropped = 0
        """Entries that could not be written where their queue says."""

    def read(self, offset: int) -> int:
        return self._registers.get(offset, 0)

    def write(self, offset: int, value: int) -> bool:
        """Size is the last of a queue's registers that the driver writes: it starts or stops the queue."""
        self._registers[offset] = value
        queue = self._by_size.get(offset)
        if queue is not None:
            self._start(queue, queue.registers, value)
        return False

    def event(self, index: int, value: int) -> None:
        """An event has changed."""
        self._notify(NotificationType.EVENT, 0, index | (entry.EVENT_SET if value else 0))

    def error(self, source: int, code: ErrorCode) -> None:
        self._notify(NotificationType.ERROR, source, code)

    def _start(self, queue: _Queue, registers: QueueRegs, size: int) -> None:
        queue.base = self.read(registers.base_hi) << 32 | self.read(registers.base_lo)
        queue.size = size // entry.SIZE * entry.SIZE
        queue.head = 0
        queue.phase = entry.FIRST_PHASE
        self._registers[registers.head] = 0
        if queue.size:
            self._append(queue, entry.start_record(self._core, queue.kind, queue.engine))

    def _notify(self, kind: NotificationType, source: int, number: int) -> None:
        queue = self._queues[kind, 0]
        if queue.size:
            self._append(queue, entry.FORMAT.pack(kind, queue.phase, source, number, self._clock.now()))

    def _append(self, queue: _Queue, data: bytes) -> None:
        at = queue.base + queue.head
        phase = entry.PHASE_OFFSET
        try:
            self._memory.write_memory(at + phase + 1, data[phase + 1 :])
            self._memory.write_memory(at, data[: phase + 1])
        except DmaFault as fault:
            self.dropped += 1
            _log.info(
                "core %d: a notification of the %s queue is lost: %s", self._core, queue.kind.name, fault
            )
            return
        queue.head += entry.SIZE
        if queue.head >= queue.size:
            queue.head = 0
            queue.phase ^= 1
        self._registers[queue.registers.head] = queue.head
