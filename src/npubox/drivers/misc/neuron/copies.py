# SPDX-License-Identifier: Apache-2.0
"""How the driver itself copies: a ring for each core, a marker behind each batch (facts, neuron.md §6.7)."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from npubox.bus.port import Clock
from npubox.drivers.misc.neuron.engines import Engines
from npubox.drivers.misc.neuron.memory import Chunk, Lifetime, Memory, Request
from npubox.drivers.misc.neuron.work import MICROSECOND, Steps, Turns, poll
from npubox.hw.neuron import descriptors, udma
from npubox.hw.neuron.descriptors import Control
from npubox.hw.neuron.pci import Revision
from npubox.uapi.neuron import MemType

RING_DESCRIPTORS = 8192
MOST_PIECES = 2032  # data descriptors of a batch
PIECE = descriptors.MAX_LENGTH
MOST_ASYNC_BYTES = MOST_PIECES * PIECE
MARKER = 0xABCDEF01.to_bytes(4, "little")
NO_MARKER = bytes(4)
PATIENCE: dict[int, int] = {Revision.QEMU: 10_000, Revision.EMULATOR: 100_000}


class Context(IntEnum):
    """Whose marker a batch ends with."""

    SYNC = 0
    ASYNC_1 = 1
    ASYNC_2 = 2


@dataclass(frozen=True)
class Piece:
    """`size` bytes, at most 65536, from one device address to another."""

    source: int
    destination: int
    size: int


def pieces(source: int, destination: int, size: int) -> Iterator[Piece]:
    """A transfer cut into pieces."""
    for start in range(0, size, PIECE):
        yield Piece(source + start, destination + start, min(PIECE, size - start))


def budget(count: int, revision: int) -> int:
    """How long `count` descriptors, the marker included, may take: ns."""
    estimate = 16 * (count - 1) * MICROSECOND
    first = estimate - 12 * MICROSECOND
    return (first if count > 1 else 0) + (estimate * 100 - first) * 10 * PATIENCE.get(revision, 1)


class CopyQueue:
    """The driver's copy queue of one core: queue 15 of its last engine."""

    def __init__(self, core: int, engines: Engines, memory: Memory, clock: Clock, revision: int) -> None:
        self.turns = Turns()
        self._core = core
        self._engines = engines
        self._memory = memory
        self._clock = clock
        self._revision = revision
        size = RING_DESCRIPTORS * descriptors.SIZE
        self._tx = self._allocate(size, MemType.DMA_RINGS_HOST)
        self._rx = self._allocate(size, MemType.DMA_RINGS_HOST)
        self._markers = self._allocate(16 * len(Context), MemType.NCDEV_HOST)
        self.bounce = self._allocate(PIECE, MemType.NCDEV_HOST)
        self.pattern = self._allocate(PIECE, MemType.NCDEV_HOST)
        self._held: dict[Context, tuple[Chunk, ...]] = {}
        self.reset()

    def reset(self) -> None:
        """Attach the rings anew, empty. Copies under way are given up."""
        self._index = 0
        self._lap = udma.FIRST_RING_ID
        self._outstanding = dict.fromkeys(Context, 0)
        self._drop_held(*Context)
        ring = RING_DESCRIPTORS
        engine = udma.memcpy_engine(self._core)
        self._engines.initialise_queue(engine, udma.MEMCPY_QUEUE, (self._tx.pa, ring), (self._rx.pa, ring))

    def transfer(self, batches: Iterator[Piece]) -> Steps[None]:
        """Copy, one batch after the other, and wait. OSError EPERM when the engine does not get done."""
        ticket = yield from self.turns.take()
        try:
            while batch := _take(batches, MOST_PIECES):
                self.start(batch, Context.SYNC)
                yield from self.wait(Context.SYNC)
        finally:
            self.turns.leave(ticket)

    def start(self, batch: list[Piece], context: Context, held: tuple[Chunk, ...] = ()) -> None:
        """Announce at most 2032 pieces and the marker of `context`. The pages of `held` stay until `wait` is
        over."""
        self._memory.hold(*held)
        self._held[context] = held
        marker = self._markers.pa + 16 * context
        self._memory.write(self._markers, 16 * context, MARKER + NO_MARKER)
        tx, rx = bytearray(), bytearray()
        for number, piece in enumerate([*batch, Piece(marker, marker + 4, 4)]):
            barrier = Control.DMB if number == len(batch) - 1 else 0
            flags = Control.FIRST | Control.LAST | barrier
            lap = self._lap + (self._index + number) // RING_DESCRIPTORS & descriptors.RING_ID_MASK
            tx += descriptors.pack_tx(piece.source, piece.size, lap, flags)
            rx += descriptors.pack_rx(piece.destination, piece.size, lap)
        count = len(batch) + 1
        self._store(self._tx, tx)
        self._store(self._rx, rx)
        self._lap = self._lap + (self._index + count) // RING_DESCRIPTORS & descriptors.RING_ID_MASK
        self._index = (self._index + count) % RING_DESCRIPTORS
        self._outstanding[context] = count
        self._engines.ring(udma.memcpy_engine(self._core), udma.MEMCPY_QUEUE, count, count)

    def in_use(self, context: Context) -> bool:
        return self._outstanding[context] > 0

    def wait(self, context: Context) -> Steps[None]:
        """Wait for the marker of `context`. OSError EPERM."""
        count = self._outstanding[context]
        done = yield from poll(self._clock, lambda: self._marked(context), budget(count, self._revision))
        if not done:
            self.reset()  # the module leaves it stuck
            raise OSError(errno.EPERM, f"DMA completion timeout on core {self._core}")
        self._outstanding[context] = 0
        self._drop_held(context)

    def _drop_held(self, *contexts: Context) -> None:
        for context in contexts:
            self._memory.drop(*self._held.pop(context, ()))

    def _marked(self, context: Context) -> bool:
        return self._memory.read(self._markers, 16 * context + 4, 4) == MARKER

    def _store(self, ring: Chunk, data: bytearray) -> None:
        left = (RING_DESCRIPTORS - self._index) * descriptors.SIZE
        self._memory.write(ring, self._index * descriptors.SIZE, bytes(data[:left]))
        if len(data) > left:
            self._memory.write(ring, 0, bytes(data[left:]))

    def _allocate(self, size: int, mem_type: MemType) -> Chunk:
        return self._memory.allocate(Request(size, host=True, mem_type=mem_type), Lifetime.DEVICE)


def _take(items: Iterator[Piece], most: int) -> list[Piece]:
    taken = []
    for item in items:
        taken.append(item)
        if len(taken) == most:
            break
    return taken
