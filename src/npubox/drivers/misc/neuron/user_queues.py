# SPDX-License-Identifier: Apache-2.0
"""Descriptor rings of applications (facts, neuron.md §6.5).

An application makes rings in memory of its own, has them attached to a queue, writes descriptors, and
has the doorbell rung. The driver keeps who owns a queue and where its software index is.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass

from npubox.drivers.misc.neuron.engines import Engines
from npubox.drivers.misc.neuron.memory import Chunk, Lifetime, Memory, Request
from npubox.hw.neuron import descriptors, udma
from npubox.hw.neuron.address import CORE_WINDOW_SIZE, CORE_WINDOWS, CORES, PORT_1
from npubox.hw.neuron.core_window import PE_FIFO, PE_FIFO_SIZE
from npubox.uapi.neuron import MemType

DUMMY_DESCRIPTORS = 64


@dataclass(eq=False)
class UserRing:
    """One ring of a queue; `chunk` None where there is none. `acknowledged` is the software index."""

    chunk: Chunk | None
    length: int
    port: int
    acknowledged: int = 0

    @property
    def address(self) -> int:
        if self.chunk is None:
            return 0
        return self.chunk.pa if self.chunk.host or not self.port else self.chunk.pa | PORT_1


@dataclass(eq=False)
class UserQueue:
    owner: int
    tx: UserRing
    rx: UserRing


class UserQueues:
    """The queues of one device. Guarded by the driver's lock. Raises OSError with the module's errno."""

    def __init__(self, engines: Engines, memory: Memory) -> None:
        self._engines = engines
        self._memory = memory
        self._queues: dict[tuple[int, int], UserQueue] = {}
        self._model_starts: dict[Chunk, int] = {}
        self._dummy: Chunk | None = None

    def initialise(self, engine: int, number: int, queue: UserQueue) -> None:
        """Attach rings to a queue, which restarts at index 0. EINVAL, EPERM."""
        check_engine(engine)
        if number >= udma.QUEUES:
            raise OSError(errno.EINVAL, f"an engine has no queue {number}")
        for ring in (queue.tx, queue.rx):
            _check_ring(ring)
        self._queues[engine, number] = queue
        tx, rx = queue.tx, queue.rx
        self._engines.initialise_queue(engine, number, (tx.address, tx.length), (rx.address, rx.length))

    def find(self, engine: int, number: int) -> UserQueue | None:
        return self._queues.get((engine, number))

    def owner(self, engine: int, number: int) -> int:
        """The process that a queue belongs to, 0 for none."""
        queue = self._queues.get((engine, number))
        return 0 if queue is None else queue.owner

    def start(self, engine: int, number: int, tx: int, rx: int) -> int | None:
        """Ring the doorbells for so many new descriptors: the core whose model that starts, if it does."""
        queue = self._queues.get((engine, number))
        if queue is None:
            raise OSError(errno.EPERM, f"queue {number} of engine {engine} has no rings")
        if tx > queue.tx.length or rx > queue.rx.length:
            raise OSError(errno.EPERM, f"{max(tx, rx)} descriptors are more than the ring has")
        if not rx or queue.rx.chunk is None:
            raise OSError(errno.EINVAL, "a copy needs destinations")  # the module crashes the kernel
        self._engines.ring(engine, number, tx, rx)
        return self._model_starts.pop(queue.rx.chunk, None)

    def acknowledge(self, engine: int, number: int, count: int) -> None:
        """Move the software index of both rings on."""
        check_engine(engine)
        queue = self._queues.get((engine, number))
        if number >= udma.QUEUES or queue is None:
            raise OSError(errno.EINVAL, f"engine {engine} has no queue {number} with rings")
        for ring in (queue.tx, queue.rx):
            if ring.length & (ring.length - 1):  # the module crashes the kernel
                raise OSError(errno.EINVAL, f"a ring of {ring.length} descriptors is no power of two")
            ring.acknowledged = (ring.acknowledged + count) % ring.length

    def note_destinations(self, ring: Chunk, written: bytes) -> None:
        """RX descriptors were written to `ring`: one that leads to an instruction FIFO starts a model."""
        for _, _, address in descriptors.FORMAT.iter_unpack(written):
            core, offset = divmod(address - CORE_WINDOWS, CORE_WINDOW_SIZE)
            if 0 <= core < CORES and PE_FIFO <= offset < PE_FIFO + PE_FIFO_SIZE:
                self._model_starts[ring] = core

    def release(self, owner: int) -> None:
        """A process is gone: its queues go on with a ring that nobody writes to."""
        mine = [key for key, queue in self._queues.items() if queue.owner == owner]
        if mine and self._dummy is None:
            size = DUMMY_DESCRIPTORS * descriptors.SIZE
            self._dummy = self._memory.allocate(
                Request(size, host=True, mem_type=MemType.DMA_RINGS_HOST), Lifetime.DEVICE
            )
        for engine, number in mine:
            assert self._dummy is not None
            ring = self._dummy.pa, DUMMY_DESCRIPTORS
            self._engines.initialise_queue(engine, number, ring, ring)
            del self._queues[engine, number]

    def forget(self, engines: Iterable[int]) -> None:
        """Engines were reset: their queues have no rings any more."""
        gone = set(engines)
        self._queues = {key: queue for key, queue in self._queues.items() if key[0] not in gone}


def check_engine(engine: int) -> None:
    """OSError EINVAL for an engine that the chip does not have."""
    if engine >= udma.ENGINES:
        raise OSError(errno.EINVAL, f"the chip has no DMA engine {engine}")


def _check_ring(ring: UserRing) -> None:
    if ring.length % udma.RING_MULTIPLE:
        raise OSError(errno.EPERM, f"{ring.length} descriptors are no multiple of {udma.RING_MULTIPLE}")
    if not udma.RING_MIN <= ring.length <= udma.RING_MAX:
        raise OSError(errno.EINVAL, f"a ring has {udma.RING_MIN} to {udma.RING_MAX} descriptors")
