# SPDX-License-Identifier: Apache-2.0
"""A queue pair at work: a slice of packets at a time, on the chip's worker (facts, neuron.md §6.4, §12.4)."""

from __future__ import annotations

import threading

from npubox.bus.virtual import DmaFault
from npubox.devices.neuron.address_map import MisalignedAccess
from npubox.devices.neuron.faults import QueueFault
from npubox.devices.neuron.gate import Denied, GuardedMemory
from npubox.devices.neuron.packets import Packet, Packets
from npubox.devices.neuron.ring import Ring
from npubox.hw.neuron.notification import ErrorCode

SLICE = 2048
"""Descriptors a side that a queue executes before it is another queue's turn: as many as the driver announces
at once; fewer where they are of many bytes."""
SLICE_BYTES = 32 << 20
BYTES_PER_MICROSECOND = 8000
"""Device time: what one engine moves, and what a descriptor costs besides. Our choice: about PCIe x8."""
DESCRIPTOR_NANOSECONDS = 100


class QueuePair:
    """An M2S ring and an S2M ring. Registers change under `lock`; `run` is the worker's alone."""

    def __init__(self, memory: GuardedMemory, lock: threading.RLock) -> None:
        self.tx = Ring(receiving=False)
        self.rx = Ring(receiving=True)
        self.fault: QueueFault | None = None
        self._memory = memory
        self._lock = lock
        self._resets = 0
        self._joining = True
        self._awaits_more_than: tuple[int, int] | None = None

    @property
    def runnable(self) -> bool:
        return (
            self.fault is None
            and self.tx.ready
            and self.rx.ready
            and self._awaits_more_than != (self.tx.pending, self.rx.pending)
        )

    def write(self, receiving: bool, register: int, value: int) -> bool:
        """Under the lock. Returns whether this was a reset of the queue."""
        reset = (self.rx if receiving else self.tx).write(register, value)
        if reset:
            self._restart()
        return reset

    def reset(self) -> None:
        """As after the chip's reset. Under the lock."""
        self.tx.reset()
        self.rx.reset()
        self._restart()

    def run(self, completes: bool) -> tuple[int, QueueFault | None]:
        """Execute a slice. Returns the device time it took, in nanoseconds, and why the queue stopped, if so.

        `completes`: the S2M completion head goes along also without a completion ring.
        """
        with self._lock:
            if not self.runnable:
                return 0, None
            resets = self._resets
            pending = self.tx.pending, self.rx.pending
        packets, fault = self._collect(*pending)
        done, stopped = self._execute(packets)
        finished = packets if done == len(packets) else packets[:done]
        tx = rx = size = 0
        for packet in finished:
            tx, rx, size = tx + packet.tx, rx + packet.rx, size + packet.size
        with self._lock:
            if resets == self._resets:
                unwritten = self._retire(finished, tx, rx, completes)
                self.fault = stopped or unwritten or fault
                self._awaits_more_than = pending if not packets else None
        return size * 1000 // BYTES_PER_MICROSECOND + tx * DESCRIPTOR_NANOSECONDS, self.fault

    def _restart(self) -> None:
        self._resets += 1
        self._awaits_more_than = None
        self._joining = True
        self.fault = None

    def _collect(self, tx_pending: int, rx_pending: int) -> tuple[list[Packet], QueueFault | None]:
        """The next packets that are all there, and what is wrong with the one after them.

        Descriptors are prefetched: a bad one stops the queue when all before it are done.
        """
        limit = SLICE
        joining = self._joining and not (self.tx.writes_completions or self.rx.writes_completions)
        packets: list[Packet] = []
        while True:
            tx, tx_fault = self.tx.fetch(self._memory, min(limit, tx_pending))
            rx, rx_fault = self.rx.fetch(self._memory, min(limit, rx_pending))
            taker = Packets(tx, rx, joining)
            room = SLICE_BYTES
            try:
                while room > 0 and (packet := taker.take()) is not None:
                    packets.append(packet)
                    room -= packet.size
            except QueueFault as refused:
                return packets, refused
            if room <= 0:
                return packets, None
            fault = tx_fault or rx_fault
            if packets or fault or limit >= max(tx_pending, rx_pending):
                return packets, fault
            limit *= 4  # one packet with more buffers than that

    def _execute(self, packets: list[Packet]) -> tuple[int, QueueFault | None]:
        """How many packets were done, and what stopped the next."""
        for done, packet in enumerate(packets):
            try:
                for source, to, size in packet.copies:
                    self._memory.copy(source, to, size)
            except DmaFault as fault:
                if packet.tx > len(packet.copies):
                    self._joining = False  # once more, to find out which of the joined packets it is
                    return done, None
                return done, QueueFault(_code(fault), str(fault), receiving=fault.write)
        return len(packets), None

    def _retire(self, packets: list[Packet], tx: int, rx: int, completes: bool) -> QueueFault | None:
        """Both heads go on, completions are written. What went wrong with that."""
        tx_writes, rx_writes = self.tx.writes_completions, self.rx.writes_completions
        self.tx.consume(tx, not tx_writes)
        self.rx.consume(rx, completes and not rx_writes)
        try:
            for packet in packets if tx_writes or rx_writes else ():
                if tx_writes:
                    self.tx.complete(packet.sources, self._memory)
                if rx_writes:
                    self.rx.complete(packet.buffers, self._memory)
        except QueueFault as fault:
            return fault
        return None


def _code(fault: DmaFault) -> ErrorCode:
    if isinstance(fault, Denied):
        return ErrorCode.DENIED
    return ErrorCode.REGISTER_ACCESS if isinstance(fault, MisalignedAccess) else ErrorCode.ADDRESS
