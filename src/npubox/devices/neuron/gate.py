# SPDX-License-Identifier: Apache-2.0
"""The access gate: what `npubox.hw.neuron.gate` declares. An npubox extension, which no real chip has."""

from __future__ import annotations

from bisect import bisect_right, insort

from npubox.bus.virtual import DmaFault
from npubox.devices.neuron.address_map import AddressMap, canonical
from npubox.hw.neuron import gate as hw
from npubox.hw.neuron import udma
from npubox.hw.neuron.gate import Command, GateReg, Result

_Range = tuple[int, int]
"""Start and end."""


class Denied(DmaFault):
    """The gate does not grant an address to the queue's owner."""


class Gate:
    """Owners of queues and ranges that are granted to them. Written under the chip's lock, read without."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._registers: dict[int, int] = {GateReg.ID: hw.MAGIC}
        self._owners: dict[tuple[int, int], int] = {}
        self._granted: dict[int, list[_Range]] = {}

    def read(self, register: int) -> int:
        queue = _queue_of(register)
        if queue is not None:
            return self._owners.get(queue, 0)
        return self._registers.get(register, 0)

    def write(self, register: int, value: int) -> bool:
        """Returns whether somebody may reach less than before."""
        queue = _queue_of(register)
        if queue is not None:
            self._owners[queue] = value % hw.OWNERS
            return True
        if register == GateReg.COMMAND:
            self._registers[GateReg.RESULT] = self._execute(value >> 16, value & 0xFFFF)
            return value >> 16 != Command.GRANT
        if register in (GateReg.START_LO, GateReg.START_HI, GateReg.SIZE_LO, GateReg.SIZE_HI):
            self._registers[register] = value
        return False

    def owner(self, queue: tuple[int, int]) -> int:
        """The owner of an engine's queue; 0 may reach everything."""
        return self._owners.get(queue, 0)

    def check(self, owner: int, address: int, size: int, write: bool) -> None:
        """Raises Denied unless the owner may reach all of [address, address + size)."""
        granted = self._granted.get(owner, [])
        start = canonical(address)
        end = start + size
        at = bisect_right(granted, (start, 1 << 64)) - 1
        while 0 <= at < len(granted) and granted[at][0] <= start < granted[at][1]:
            start = granted[at][1]
            if start >= end:
                return
            at += 1
        raise Denied(start, size, write, f"not granted to owner {owner} of the queue")

    def _execute(self, command: int, owner: int) -> Result:
        start, size = self._operand(GateReg.START_LO), self._operand(GateReg.SIZE_LO)
        granted = self._granted.get(owner, [])
        entry = (start, start + size)
        if not owner:
            return Result.BAD_COMMAND
        if command == Command.GRANT and size:
            if any(start < end and begin < entry[1] for begin, end in granted):
                return Result.OVERLAP
            changed = list(granted)
            insort(changed, entry)
            self._granted[owner] = changed
        elif command == Command.REVOKE:
            if entry not in granted:
                return Result.NO_SUCH_RANGE
            self._granted[owner] = [other for other in granted if other != entry]
        elif command == Command.DROP:
            self._granted.pop(owner, None)
            self._owners = {queue: other for queue, other in self._owners.items() if other != owner}
        else:
            return Result.BAD_COMMAND
        return Result.OK

    def _operand(self, low: int) -> int:
        return self._registers.get(low + 4, 0) << 32 | self._registers.get(low, 0)


class GuardedMemory:
    """The chip's address map as one queue may use it: the gate is asked before each access."""

    def __init__(self, memory: AddressMap, gate: Gate, engine: int, queue: int) -> None:
        self._memory = memory
        self._gate = gate
        self._queue = engine, queue

    def read(self, address: int, size: int) -> bytes:
        """As `AddressMap.read`; raises Denied too, as all of these."""
        if owner := self._gate.owner(self._queue):
            self._gate.check(owner, address, size, False)
        return self._memory.read(address, size)

    def write_memory(self, address: int, data: bytes) -> None:
        if owner := self._gate.owner(self._queue):
            self._gate.check(owner, address, len(data), True)
        self._memory.write_memory(address, data)

    def copy(self, source: int, to: int, size: int) -> None:
        if owner := self._gate.owner(self._queue):
            self._gate.check(owner, source, size, False)
            self._gate.check(owner, to, size, True)
        self._memory.copy(source, to, size)


def _queue_of(register: int) -> tuple[int, int] | None:
    """The engine and queue whose owner a register is."""
    number = (register - hw.owner_register(0, 0)) // 4
    return divmod(number, udma.QUEUES) if 0 <= number < udma.ENGINES * udma.QUEUES else None
