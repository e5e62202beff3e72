# SPDX-License-Identifier: Apache-2.0
"""Keeps processes apart, with the chip's access gate: which addresses descriptors of whose queues may reach.

A process is granted its own memory, on every chip that it can be reached from, and the windows of cores
that it has marked. The real chip has no gate (`npubox.hw.neuron.gate`).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from npubox.bus.port import PciDevice
from npubox.core import libc
from npubox.core.idr import Idr
from npubox.drivers.misc.neuron.memory import Chunk
from npubox.hw.neuron import gate
from npubox.hw.neuron.address import CORE_WINDOW_SIZE, CORE_WINDOWS, CORES, Window, dram_bar_offset, through
from npubox.hw.neuron.gate import Command, GateReg
from npubox.hw.neuron.pci import Bar

if TYPE_CHECKING:
    from npubox.drivers.misc.neuron.device import NeuronDevice

DRIVER = 0  # the owner that is not checked


class Gate:
    """One chip's gate."""

    def __init__(self, port: PciDevice) -> None:
        """OSError ENODEV where the chip has none."""
        if port.read32(Bar.APB, gate.BASE + GateReg.ID) != gate.MAGIC:
            raise OSError(errno.ENODEV, "processes are kept apart by an access gate, which this chip has not")
        self._port = port

    def command(self, command: Command, owner: int, start: int = 0, size: int = 0) -> None:
        for register, value in ((GateReg.START_LO, start), (GateReg.SIZE_LO, size)):
            self._write(register, value & 0xFFFF_FFFF)
            self._write(register + 4, value >> 32)
        self._write(GateReg.COMMAND, command << 16 | owner)

    def own(self, engine: int, queue: int, owner: int) -> None:
        self._write(gate.owner_register(engine, queue), owner)

    def _write(self, register: int, value: int) -> None:
        self._port.write32(Bar.APB, gate.BASE + register, value)


class Isolation:
    """Follows what processes get and give back; without chips it does nothing. Guarded by the driver's
    lock."""

    def __init__(self, devices: Sequence[NeuronDevice], links: Sequence[Mapping[Window, int]]) -> None:
        """`links`: the neighbours of each device. OSError ENODEV where a chip has no gate."""
        self._gates = [Gate(device.port) for device in devices]
        self._links = links
        self._owners: Idr[int] = Idr(1, gate.OWNERS - 1)
        self._numbers: dict[int, int] = {}

    def memory_changed(self, device: NeuronDevice, chunk: Chunk, sign: int) -> None:
        """Memory was allocated (+1), and is then all zero, or freed (-1)."""
        if not self._gates:
            return
        if sign > 0 and not chunk.host:
            _wipe(device, chunk)
        if chunk.owner:
            command = Command.GRANT if sign > 0 else Command.REVOKE
            reach = self._everywhere(chunk.pa) if chunk.host else self._from(device.index, chunk.pa)
            self._tell(command, chunk.owner, reach, chunk.size)

    def cores_changed(self, pid: int, slots: Iterable[int], sign: int) -> None:
        """A process marked cores (+1) or gave them up (-1)."""
        for slot in slots if self._gates else ():
            index, core = divmod(slot, CORES)
            if index < len(self._gates):
                command = Command.GRANT if sign > 0 else Command.REVOKE
                window = CORE_WINDOWS + core * CORE_WINDOW_SIZE
                self._tell(command, pid, self._from(index, window), CORE_WINDOW_SIZE)

    def queue_attached(self, device: NeuronDevice, engine: int, queue: int, pid: int) -> None:
        """A queue belongs to a process from now on; call it before the queue gets its rings."""
        if self._gates:
            self._gates[device.index].own(engine, queue, self._number(pid))

    def process_gone(self, pid: int) -> None:
        """Call it when its queues are the driver's again."""
        number = self._numbers.pop(pid, None)
        if number is not None:
            for each in self._gates:
                each.command(Command.DROP, number)
            self._owners.remove(number)

    def restore(
        self, device: NeuronDevice, chunks: Iterable[tuple[NeuronDevice, Chunk]], marks: Mapping[int, int]
    ) -> None:
        """A chip was reset, and its gate with it: grant again what could be reached from it. `marks`: the
        owner of each slot."""
        if not self._gates:
            return
        mine = self._gates[device.index]
        granted = [
            (chunk.owner, chunk.pa, chunk.size, None if chunk.host else other.index)
            for other, chunk in chunks
        ]
        granted += [
            (pid, CORE_WINDOWS + slot % CORES * CORE_WINDOW_SIZE, CORE_WINDOW_SIZE, slot // CORES)
            for slot, pid in marks.items()
        ]
        for pid, address, size, index in granted:
            reach = self._everywhere(address) if index is None else self._from(index, address)
            for each, where in reach if pid else ():
                if each is mine:
                    each.command(Command.GRANT, self._number(pid), where, size)

    def _everywhere(self, address: int) -> Iterator[tuple[Gate, int]]:
        return ((each, address) for each in self._gates)

    def _from(self, index: int, address: int) -> Iterator[tuple[Gate, int]]:
        """The gates of the chips that reach a chip's address, and by which address of theirs."""
        yield self._gates[index], address
        for each, links in zip(self._gates, self._links, strict=True):
            for window, neighbour in links.items():
                if neighbour == index:
                    yield each, through(window, address)

    def _tell(self, command: Command, pid: int, reach: Iterator[tuple[Gate, int]], size: int) -> None:
        for each, address in reach:
            each.command(command, self._number(pid), address, size)

    def _number(self, pid: int) -> int:
        if pid == DRIVER:
            return DRIVER
        number = self._numbers.get(pid)
        if number is None:
            number = self._numbers[pid] = self._owners.allocate(pid)
        return number


def _wipe(device: NeuronDevice, chunk: Chunk) -> None:
    """Nothing of the memory's last owner is left."""
    start = dram_bar_offset(chunk.pa)
    assert start is not None
    for area in device.port.bars[Bar.DRAM].areas:
        if area.start <= start < area.start + area.size:
            libc.punch_hole(area.fd, area.offset + start - area.start, chunk.size)
