# SPDX-License-Identifier: Apache-2.0
"""One UDMA engine: its registers and its 16 queue pairs (facts, neuron.md §6.2, §12.3)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from npubox.bus.virtual import VirtualClock
from npubox.devices.neuron.address_map import AddressMap
from npubox.devices.neuron.faults import QueueFault
from npubox.devices.neuron.gate import Gate, GuardedMemory
from npubox.devices.neuron.queue_pair import QueuePair
from npubox.devices.neuron.worker import Worker
from npubox.hw.neuron import udma as hw
from npubox.hw.neuron.notification import ErrorCode
from npubox.hw.neuron.udma import ChangeState, EngineReg, M2sError, S2mError, Secondary, StateField

_log = logging.getLogger(__name__)

_M2S_CAUSES = {
    ErrorCode.RING_ID: M2sError.RING_ID,
    ErrorCode.FIRST_LAST: M2sError.FIRST_BIT,
    ErrorCode.PACKET_DESCRIPTORS: M2sError.TOO_MANY_DESCRIPTORS,
    ErrorCode.PACKET_LENGTH: M2sError.PACKET_LENGTH,
    ErrorCode.RING_FETCH: M2sError.AXI_DESCRIPTOR,
}
_S2M_CAUSES = {ErrorCode.RING_ID: S2mError.RING_ID, ErrorCode.RING_FETCH: S2mError.AXI_DESCRIPTOR}
_M2S_CAUSE = hw.secondary_group(hw.M2S_ERRORS) + Secondary.CAUSE
_S2M_CAUSE = hw.secondary_group(hw.S2M_ERRORS) + Secondary.CAUSE
_STATES = {EngineReg.M2S_CHANGE_STATE: EngineReg.M2S_STATE, EngineReg.S2M_CHANGE_STATE: EngineReg.S2M_STATE}
_ABORTED = sum(StateField.ABORT << shift for shift in hw.STATE_FIELD_SHIFTS)
_WORKING = sum(StateField.NORMAL << shift for shift in hw.STATE_FIELD_SHIFTS)
_QUEUE_SPACE = 0x1000
_M2S_FIRST, _M2S_END = hw.m2s_queue(0), hw.m2s_queue(hw.QUEUES)
_S2M_FIRST, _S2M_END = hw.s2m_queue(0), hw.s2m_queue(hw.QUEUES)


class Engine:
    """Registers change under the chip's lock. `failed` is told, on the worker, which queue stopped, why."""

    def __init__(
        self,
        number: int,
        memory: AddressMap,
        gate: Gate,
        clock: VirtualClock,
        worker: Worker,
        lock: threading.RLock,
        failed: Callable[[int, int, QueueFault], None],
    ) -> None:
        self._number = number
        self._clock = clock
        self._worker = worker
        self._lock = lock
        self._failed = failed
        self._until = 0
        self._working = False
        self.busy = 0
        """Device time that the engine has worked, in nanoseconds."""
        self._queues = [
            _Queue(self, index, QueuePair(GuardedMemory(memory, gate, number, index), lock))
            for index in range(hw.QUEUES)
        ]
        self._registers: dict[int, int] = {}
        self.reset()

    def reset(self) -> None:
        self._registers = {EngineReg.DMA_VERSION: hw.DMA_VERSION}
        self._halted: set[int] = set()
        for queue in self._queues:
            queue.pair.reset()

    @property
    def halted(self) -> bool:
        return bool(self._halted)

    def read(self, offset: int) -> int:
        place = _queue_register(offset)
        if place is not None:
            receiving, index, register = place
            pair = self._queues[index].pair
            return (pair.rx if receiving else pair.tx).read(register)
        value = self._registers.get(offset, 0)
        if offset in _STATES.values() and self._working and not value:
            return _WORKING
        return value

    def write(self, offset: int, value: int) -> bool:
        """Under the chip's lock. Returns whether a queue was reset: its last slice may still be running."""
        place = _queue_register(offset)
        if place is not None:
            receiving, index, register = place
            queue = self._queues[index]
            reset = queue.pair.write(receiving, register, value)
            if queue.runnable:
                self._worker.schedule(queue)
            return reset
        if offset in _STATES:
            self._change_state(offset, value)
        if offset in (_M2S_CAUSE, _S2M_CAUSE):
            value &= self._registers.get(offset, 0)
        self._registers[offset] = value
        return False

    def run(self, queue: _Queue) -> int:
        """A slice of a queue, on the worker. Returns the device time when the engine is through with it."""
        self._working = True
        start = max(self._until, self._clock.now())
        held = self._registers.get(EngineReg.SPARE, 0) & hw.SPARE_COMPLETION_HOLDS
        duration, fault = queue.pair.run(completes=not held)
        self._working = False
        self._until = start + duration
        self.busy += duration
        if fault is not None:
            self._report(queue.index, fault)
        return self._until

    def _change_state(self, offset: int, value: int) -> None:
        state = _STATES[EngineReg(offset)]
        self._registers[state] = _ABORTED if value == ChangeState.ABORT else 0
        if value == ChangeState.NORMAL:
            self._halted.discard(offset)
            for queue in self._queues:
                if queue.runnable:
                    self._worker.schedule(queue)
        else:
            self._halted.add(offset)

    def _report(self, index: int, fault: QueueFault) -> None:
        _log.info("DMA engine %d queue %d stopped: %s", self._number, index, fault)
        with self._lock:
            if fault.receiving:
                cause, bit = _S2M_CAUSE, int(_S2M_CAUSES.get(fault.code, S2mError.AXI_WRITE))
            else:
                cause, bit = _M2S_CAUSE, int(_M2S_CAUSES.get(fault.code, M2sError.AXI_READ))
            self._registers[cause] = self._registers.get(cause, 0) | bit
        self._failed(self._number, index, fault)


class _Queue:
    """A queue pair as the worker's task."""

    def __init__(self, engine: Engine, index: int, pair: QueuePair) -> None:
        self._engine = engine
        self.index = index
        self.pair = pair

    @property
    def runnable(self) -> bool:
        return not self._engine.halted and self.pair.runnable

    def run(self) -> int:
        return self._engine.run(self)


def _queue_register(offset: int) -> tuple[bool, int, int] | None:
    """Side, queue and register of an offset into the engine's queue registers."""
    if _M2S_FIRST <= offset < _M2S_END:
        return False, (offset - _M2S_FIRST) // _QUEUE_SPACE, offset % _QUEUE_SPACE
    if _S2M_FIRST <= offset < _S2M_END:
        return True, (offset - _S2M_FIRST) // _QUEUE_SPACE, offset % _QUEUE_SPACE
    return None
