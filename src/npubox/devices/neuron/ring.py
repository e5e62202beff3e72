# SPDX-License-Identifier: Apache-2.0
"""One descriptor ring of a queue pair: its registers and its mechanics (facts, neuron.md §6.2, §6.4)."""

from __future__ import annotations

from npubox.bus.virtual import DmaFault
from npubox.devices.neuron.faults import QueueFault
from npubox.devices.neuron.gate import Denied, GuardedMemory
from npubox.hw.neuron import descriptors, udma
from npubox.hw.neuron.descriptors import LENGTH_MASK, RING_ID_MASK, RING_ID_SHIFT, Completion
from npubox.hw.neuron.notification import ErrorCode
from npubox.hw.neuron.udma import POINTER_MASK, CompCfg, QueueCfg, QueueReg

RING_IDS = 4
_TO_RING_ID = bytes(top & RING_ID_MASK for top in range(256))
"""A control word's top byte to its ring id."""


# Plain numbers, for every doorbell comes here: looking enums up and masking with flags is slow
_CFG, _LENGTH = int(QueueReg.CFG), int(QueueReg.RING_LENGTH)
_BASE_LO, _BASE_HI = int(QueueReg.RING_BASE_LO), int(QueueReg.RING_BASE_HI)
_TAIL_INCREMENT = int(QueueReg.TAIL_INCREMENT)
_COMP_WRITE = int(CompCfg.WRITE)
_READ_ONLY = frozenset(
    map(int, (QueueReg.STATUS, QueueReg.HEAD, QueueReg.TAIL, QueueReg.CURRENT, QueueReg.COMPLETION_HEAD))
)
_ENABLED = int(QueueCfg.PREFETCH | QueueCfg.SCHEDULING)


class Ring:
    """The M2S or S2M side of a queue. Registers change under the chip's lock; only its worker consumes."""

    def __init__(self, receiving: bool) -> None:
        self._receiving = receiving
        self._sw_ctrl = int(QueueReg.S2M_SW_CTRL if receiving else QueueReg.M2S_SW_CTRL)
        self._comp_cfg = int(QueueReg.S2M_COMP_CFG if receiving else QueueReg.M2S_COMP_CFG)
        self.reset()

    def reset(self) -> None:
        """As after the chip's reset: no ring at all."""
        self._registers: dict[int, int] = {}
        self.base = 0
        self.length = 0
        """In descriptors."""
        self._enabled = False
        self._store(_CFG, udma.QUEUE_CFG_RESET)
        self.rewind()

    def rewind(self) -> None:
        """A reset of the queue: base and length stay."""
        self.head = self.tail = self.pending = self.completed = 0
        self._head_id = self._tail_id = self._completed_id = udma.FIRST_RING_ID
        self._overflow = 0

    @property
    def ready(self) -> bool:
        """There is something to do: descriptors, or a doorbell that was wrong."""
        return self._enabled and (self.pending > 0 or self._overflow > 0)

    @property
    def writes_completions(self) -> bool:
        return self._get(self._comp_cfg) & _COMP_WRITE != 0

    def read(self, register: int) -> int:
        match register:
            case QueueReg.HEAD | QueueReg.CURRENT:
                return self.head | self._head_id << udma.RING_ID_SHIFT
            case QueueReg.TAIL:
                return self.tail | self._tail_id << udma.RING_ID_SHIFT
            case QueueReg.COMPLETION_HEAD:
                return self.completed | self._completed_id << udma.RING_ID_SHIFT
        return self._get(register)

    def write(self, register: int, value: int) -> bool:
        """Returns whether this was a reset of the queue."""
        if register == _TAIL_INCREMENT:
            self._announce(value & POINTER_MASK)
        elif register == self._sw_ctrl:
            if value & udma.SW_CTRL_RESET:
                self.rewind()
                return True
        elif register not in _READ_ONLY:
            self._store(register, value)
        return False

    def _store(self, register: int, value: int) -> None:
        self._registers[register] = value
        if register == _CFG:
            self._enabled = value & _ENABLED == _ENABLED
        elif register == _LENGTH:
            self.length = value & POINTER_MASK
        elif register in (_BASE_LO, _BASE_HI):
            self.base = self._get(_BASE_HI) << 32 | self._get(_BASE_LO)

    def fetch(self, memory: GuardedMemory, count: int) -> tuple[bytes, QueueFault | None]:
        """The next `count` descriptors up to the first bad one, and what is wrong with that."""
        length, base = self.length, self.base
        if self._overflow:
            reason = f"doorbell: {self._overflow} more descriptors than a ring of {length} has room for"
            return b"", self._fault(ErrorCode.TAIL_OVERFLOW, reason)
        if self.head >= length or count > length or length % udma.RING_MULTIPLE or base % udma.RING_ALIGNMENT:
            return b"", self._fault(ErrorCode.RING_FETCH, f"ring: {length} descriptors at {base:#x}")
        this_lap = min(count, length - self.head)
        found, fault = self._fetch_lap(memory, self.head, this_lap, self._head_id)
        if count > this_lap and fault is None:
            following = (self._head_id + 1) % RING_IDS
            more, fault = self._fetch_lap(memory, 0, count - this_lap, following)
            found += more
        return found, fault

    def _fetch_lap(
        self, memory: GuardedMemory, index: int, count: int, ring_id: int
    ) -> tuple[bytes, QueueFault | None]:
        """Descriptors of one lap from `index` on; as `fetch`."""
        try:
            data = memory.read(self.base + index * descriptors.SIZE, count * descriptors.SIZE)
        except DmaFault as fault:
            code = ErrorCode.DENIED if isinstance(fault, Denied) else ErrorCode.RING_FETCH
            return b"", self._fault(code, f"ring: {fault}")
        ids = data[RING_ID_SHIFT // 8 :: descriptors.SIZE].translate(_TO_RING_ID)
        if ids.count(ring_id) != count:
            good = count - len(ids.lstrip(bytes([ring_id])))
            reason = f"descriptor {index + good} has ring id {ids[good]}, its lap is {ring_id}"
            return data[: good * descriptors.SIZE], self._fault(ErrorCode.RING_ID, reason)
        return data, None

    def consume(self, count: int, completes: bool) -> None:
        """`count` descriptors are done; `completes`: the completion head goes along, nothing is written."""
        self.pending -= count
        self.head, self._head_id = self._advance(self.head, self._head_id, count)
        if completes:
            self.completed, self._completed_id = self._advance(self.completed, self._completed_id, count)

    def complete(self, sizes: list[int], memory: GuardedMemory) -> None:
        """Write the completions of one packet. Raises QueueFault."""
        for at, size in enumerate(sizes):
            first = Completion.FIRST if at == 0 else 0
            last = Completion.LAST if at == len(sizes) - 1 else 0
            self._write_completion(size & LENGTH_MASK | first | last, memory)

    def _write_completion(self, word: int, memory: GuardedMemory) -> None:
        base = self._get(QueueReg.COMPLETION_BASE_HI) << 32 | self._get(QueueReg.COMPLETION_BASE_LO)
        entry = descriptors.COMPLETION_FORMAT.pack(word | self._completed_id << RING_ID_SHIFT, 0, 0, 0)
        try:
            memory.write_memory(base + self.completed * descriptors.SIZE, entry)
        except DmaFault as fault:
            raise self._fault(ErrorCode.RING_FETCH, f"completion ring: {fault}") from None
        self.completed, self._completed_id = self._advance(self.completed, self._completed_id, 1)

    def _announce(self, count: int) -> None:
        if self.pending + count > self.length:
            self._overflow = count
            return
        self.pending += count
        self.tail, self._tail_id = self._advance(self.tail, self._tail_id, count)

    def _advance(self, index: int, ring_id: int, count: int) -> tuple[int, int]:
        index += count
        if index >= self.length:
            return index - self.length, (ring_id + 1) % RING_IDS
        return index, ring_id

    def _fault(self, code: ErrorCode, reason: str) -> QueueFault:
        return QueueFault(code, f"{'RX' if self._receiving else 'TX'} {reason}", self._receiving)

    def _get(self, register: int) -> int:
        return self._registers.get(register, 0)
