# SPDX-License-Identifier: Apache-2.0
"""The chip's address map: what a device address leads to (facts, neuron.md §1.3, §12.4)."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from npubox.bus.virtual import AddressSpace, DmaFault, DmaMapping
from npubox.devices.neuron.memory import LocalMemory, Memory, move
from npubox.hw.neuron import address as hw
from npubox.hw.neuron.address import Window
from npubox.hw.neuron.core_window import EVENTS, SEMAPHORES_END
from npubox.hw.neuron.pci import BAR_SIZE, Bar

UNMAPPED_VALUE = 0xDEADBEEF
"""What a register read finds where nothing is (§12.3)."""
_ADDRESS_BITS = 48
_HOST, _EAST, _WEST = int(Window.HOST), int(Window.EAST), int(Window.WEST)
_CORE_WINDOWS_END = hw.CORE_WINDOWS + hw.CORES * hw.CORE_WINDOW_SIZE


class RegisterBank(Protocol):
    def read32(self, bar: int, offset: int) -> int: ...

    def write32(self, bar: int, offset: int, value: int) -> None: ...


class Words(NamedTuple):
    """`size` bytes of registers: whole words, each access with its side effects."""

    bank: RegisterBank
    bar: int
    offset: int
    size: int


class MisalignedAccess(DmaFault):
    """A transfer to or from registers that is not made of whole, aligned words."""


def canonical(address: int) -> int:
    """The address without the port bit, which only says by which way (in the host's it is an address bit)."""
    return address if address >> hw.WINDOW_SHIFT == _HOST else address & ~hw.PORT_1


class AddressMap:
    """Resolves device addresses piece by piece; `east` and `west` are the maps of the neighbours."""

    def __init__(self, local: LocalMemory, bank: RegisterBank, host: AddressSpace) -> None:
        self._local = local
        self._bank = bank
        self._host = host
        self.east: AddressMap | None = None
        self.west: AddressMap | None = None
        self.host_bytes = 0
        """How many bytes transfers moved from or to the host, both counted."""

    def resolve(self, address: int, size: int, write: bool) -> Memory | Words:
        """What the first bytes of [address, address + size) are, as far as they are one thing. DmaFault."""
        window = address >> hw.WINDOW_SHIFT
        if not window:
            return self._resolve_local(address & ~hw.PORT_1, size, write)
        if window == _HOST:
            return self._resolve_host(address & hw.WINDOW_MASK, size, write)
        if window > _WEST:
            raise DmaFault(address, size, write, f"outside the {_ADDRESS_BITS}-bit address space")
        neighbour = self.east if window == _EAST else self.west
        if neighbour is None:
            raise DmaFault(address, size, write, f"no {Window(window).name.lower()} neighbour")
        return neighbour._resolve_local(address & hw.WINDOW_MASK & ~hw.PORT_1, size, write)

    def pieces(self, address: int, size: int, write: bool) -> Iterator[Memory | Words]:
        """All of [address, address + size), in order. Raises DmaFault where the first missing piece is."""
        while size:
            piece = self.resolve(address, size, write)
            yield piece
            address += piece.size
            size -= piece.size

    def read(self, address: int, size: int) -> bytes:
        """A copy of `size` bytes. Raises DmaFault."""
        if size:
            whole = self.resolve(address, size, False)
            if whole.size == size and isinstance(whole, Memory):
                return ctypes.string_at(whole.pointer, size)
        parts = []
        for piece in self.pieces(address, size, write=False):
            if isinstance(piece, Memory):
                parts.append(ctypes.string_at(piece.pointer, piece.size))
            else:
                parts.extend(
                    piece.bank.read32(piece.bar, piece.offset + at).to_bytes(4, "little")
                    for at in range(0, piece.size, 4)
                )
        return b"".join(parts)

    def write(self, address: int, data: bytes) -> None:
        """Raises DmaFault; what comes before the fault is written."""
        at = 0
        for piece in self.pieces(address, len(data), write=True):
            part = data[at : at + piece.size]
            at += piece.size
            if isinstance(piece, Memory):
                ctypes.memmove(piece.pointer, part, piece.size)
            else:
                for word in range(0, piece.size, 4):
                    value = int.from_bytes(part[word : word + 4], "little")
                    piece.bank.write32(piece.bar, piece.offset + word, value)

    def write_memory(self, address: int, data: bytes) -> None:
        """As `write`, but a register is a DmaFault: for writes with a chip's lock held."""
        pieces = list(self.pieces(address, len(data), write=True))
        if not all(isinstance(piece, Memory) for piece in pieces):
            raise DmaFault(address, len(data), True, "registers are no place for a ring or message")
        self.write(address, data)

    def read32(self, address: int) -> int:
        """A word as the firmware reads it: `UNMAPPED_VALUE` where nothing is."""
        try:
            return int.from_bytes(self.read(address, 4), "little")
        except DmaFault:
            return UNMAPPED_VALUE

    def copy(self, source: int, to: int, size: int) -> None:
        """Copy piece by piece, each as memmove does. Raises DmaFault; what comes before it is copied then."""
        while size:
            origin = self.resolve(source, size, False)
            target = self.resolve(to, origin.size, True)
            count = min(origin.size, target.size)
            if isinstance(origin, Memory) and isinstance(target, Memory):
                move(target.pointer, origin.pointer, count)
                self.host_bytes += count * (
                    isinstance(origin.owner, DmaMapping) + isinstance(target.owner, DmaMapping)
                )
            else:
                self.write(to, self.read(source, count))
            source += count
            to += count
            size -= count

    def _resolve_host(self, address: int, size: int, write: bool) -> Memory:
        mapping = self._host.at(address, size, write)
        offset = address - mapping.address
        return Memory(mapping.pointer + offset, min(size, mapping.size - offset), mapping)

    def _resolve_local(self, address: int, size: int, write: bool) -> Memory | Words:
        channel, offset = divmod(address, hw.DRAM_CHANNEL_STRIDE)
        if channel < hw.DRAM_CHANNELS and offset < hw.DRAM_CHANNEL_SIZE:
            return self._local.dram(channel, offset, size)
        if hw.CORE_WINDOWS <= address < _CORE_WINDOWS_END:
            return self._resolve_window(address, size, write)
        offset = address - hw.APB
        if 0 <= offset < BAR_SIZE[Bar.APB]:
            return self._words(address, Bar.APB, offset, min(size, BAR_SIZE[Bar.APB] - offset), write)
        raise DmaFault(address, size, write, "nothing is there")

    def _resolve_window(self, address: int, size: int, write: bool) -> Memory | Words:
        offset = address - hw.CORE_WINDOWS
        within = offset % hw.CORE_WINDOW_SIZE
        if within < EVENTS:
            return self._local.windows(offset, min(size, EVENTS - within))
        if within < SEMAPHORES_END:
            return self._words(address, Bar.AXI, offset, min(size, SEMAPHORES_END - within), write)
        return self._local.windows(offset, min(size, hw.CORE_WINDOW_SIZE - within))

    def _words(self, address: int, bar: Bar, offset: int, size: int, write: bool) -> Words:
        if (offset | size) % 4:
            raise MisalignedAccess(address, size, write, "registers are accessed in whole, aligned words")
        return Words(self._bank, bar, offset, size)
