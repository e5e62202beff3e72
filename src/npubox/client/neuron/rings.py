# SPDX-License-Identifier: Apache-2.0
"""Descriptor rings of the program's own."""

from __future__ import annotations

import time

import numpy as np

from npubox.client.neuron.memory import Memory
from npubox.client.neuron.node import NeuronNode
from npubox.errors import DeviceError, InputError, WaitTimeout
from npubox.hw.neuron import descriptors, udma
from npubox.hw.neuron.descriptors import Control
from npubox.uapi import neuron as uapi
from npubox.uapi import neuron_structs as structs

DESCRIPTOR = np.dtype([("control", "<u4"), ("meta", "<u4"), ("address", "<u8")])
KEPT_FREE = 16
PAUSE = 20e-6
MARKED = 0xABCDEF01


class DmaRing:
    """A queue of an engine with two rings in coherent memory, which this program writes through mappings.

    `copy` does everything; `push`, `start` and `wait` are its steps. The completion is a word that the ring
    itself copies behind the data, seen in mapped memory.
    """

    def __init__(self, node: NeuronNode, engine: int, queue: int, length: int) -> None:
        """`length` descriptors, a power of two of 32 and more. Raises DeviceError, InputError."""
        if length < udma.RING_MIN or length & (length - 1):
            raise InputError(f"{node.name}: a ring of {length} descriptors; give a power of two, 32 or more")
        self.engine, self.queue, self.length = engine, queue, length
        self._node = node
        self._name = f"DMA engine {engine} queue {queue}"
        size = length * descriptors.SIZE
        self._memories = [_host_memory(node, size), _host_memory(node, size), _host_memory(node, 8)]
        tx, rx, self._word = self._memories
        self._tx, self._rx = tx.view(DESCRIPTOR), rx.view(DESCRIPTOR)
        self._marks = self._word.view("<u4")
        self._closed = False
        self._next = 0
        self._new = 0
        self._unfinished = 0
        args = structs.DmaQueueInit(
            eng_id=engine,
            qid=queue,
            tx_desc_count=length,
            rx_desc_count=length,
            tx_handle=tx.handle,
            rx_handle=rx.handle,
        )
        try:
            node.call(uapi.DMA_QUEUE_INIT, args)
            node.stopped.pop(self._name, None)
        except BaseException:
            self.close()
            raise

    @property
    def room(self) -> int:
        """How many descriptors can be pushed before the next `wait`."""
        return self.length - KEPT_FREE - self._unfinished

    def push(self, source: int, destination: int, size: int) -> None:
        """Write the descriptors of a copy between device addresses. InputError if they do not fit."""
        self._check_open()
        count = -(-size // descriptors.MAX_LENGTH)
        if count > self.room:
            raise InputError(f"{self._node.name}: {count} descriptors, but the ring has room for {self.room}")
        for start in range(0, size, descriptors.MAX_LENGTH):
            length = min(descriptors.MAX_LENGTH, size - start)
            lap = udma.FIRST_RING_ID + self._next // self.length & descriptors.RING_ID_MASK
            control = length & descriptors.LENGTH_MASK | lap << descriptors.RING_ID_SHIFT
            at = self._next % self.length
            framed = control | Control.FIRST | Control.LAST
            self._tx[at] = (framed, descriptors.Meta.COPY, source + start)
            self._rx[at] = (control, 0, destination + start)
            self._next += 1
        self._new += count
        self._unfinished += count

    def start(self) -> None:
        """Have the engine begin with what was pushed."""
        self._check_open()
        args = structs.DmaQueueCopyStart(
            eng_id=self.engine, qid=self.queue, tx_desc_count=self._new, rx_desc_count=self._new
        )
        self._new = 0
        self._node.call(uapi.DMA_QUEUE_COPY_START, args)

    def wait(self, timeout: float = 10.0) -> None:
        """Return when all that was started is done.

        Raises WaitTimeout; DeviceError if the queue stopped, where that can be known: a virtual chip tells,
        of a real one an ERROR notification does.
        """
        self.push(self._word.address, self._word.address + 4, 4)
        self._marks[:] = (MARKED, 0)
        self.start()
        deadline = time.monotonic() + timeout
        while self._marks[1] != MARKED:
            if self._name in self._node.stopped:
                reason = self._node.stopped[self._name]
                raise DeviceError(f"{self._node.name}: {self._name} stopped: {reason}; a new ring resets it")
            if time.monotonic() >= deadline:
                raise WaitTimeout(
                    f"{self._node.name}: {self._name} is not done after {timeout} s; its core's ERROR"
                    " notifications say why a queue stopped"
                )
            time.sleep(PAUSE)
        args = structs.DmaAckCompleted(eng_id=self.engine, qid=self.queue, count=self._unfinished)
        self._unfinished = 0
        self._node.call(uapi.DMA_ACK_COMPLETED, args)

    def copy(self, source: Memory | int, destination: Memory | int, size: int, timeout: float = 10.0) -> None:
        """Copy between device addresses and wait; as much at once as the ring holds."""
        start, end = _address(source), _address(destination)
        step = (self.length - 2 * KEPT_FREE) * descriptors.MAX_LENGTH
        for done in range(0, size, step):
            self.push(start + done, end + done, min(step, size - done))
            self.wait(timeout)

    def close(self) -> None:
        """Free the rings; without them the queue stops at its next fetch. May be called twice."""
        if self._closed:
            return
        self._closed = True
        del self._tx, self._rx, self._marks
        for memory in self._memories:
            memory.free()

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceError(f"{self._node.name}: this ring was closed; make another")

    def __enter__(self) -> DmaRing:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _host_memory(node: NeuronNode, size: int) -> Memory:
    return Memory(node, size, host=True, channel=0, region=0, core=0)


def _address(place: Memory | int) -> int:
    return place.address if isinstance(place, Memory) else place
