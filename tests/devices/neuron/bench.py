# SPDX-License-Identifier: Apache-2.0
"""A chip with host memory, and what the kernel module writes to it, without a driver (neuron.md §6.6)."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence

from npubox.bus.port import Prot
from npubox.bus.virtual import AddressSpace, VirtualClock, VirtualPciPort
from npubox.devices.neuron.chip import Inferentia, connect
from npubox.hw.neuron import address, fwio, misc_ram, udma
from npubox.hw.neuron.address import Window, through
from npubox.hw.neuron.descriptors import SIZE, Control, pack_rx, pack_tx
from npubox.hw.neuron.misc_ram import MiscReg
from npubox.hw.neuron.pci import Bar
from npubox.hw.neuron.udma import QueueReg

HOST_BUS = 0x2000_0000
"""Where the host's memory is on the bus."""
REQUEST, RESPONSE = 0, 0x1_0000
"""Offsets in host memory of the FWIO buffers."""
RINGS = 0x2_0000
DATA = 0x10_0000


class Host:
    """Host memory that one chip reaches: `memory` is what a program would have mapped."""

    def __init__(self, dma: AddressSpace, size: int) -> None:
        self.fd = os.memfd_create("host", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, size)
        self.memory = mmap.mmap(self.fd, size)
        dma.map(HOST_BUS, self.fd, 0, size, Prot.READ | Prot.WRITE)

    @staticmethod
    def address(offset: int) -> int:
        """The device address of a byte of host memory."""
        return through(Window.HOST, HOST_BUS + offset)

    def word(self, offset: int) -> int:
        return int(struct.unpack_from("<I", self.memory, offset)[0])


class Bench:
    """A chip behind its port. The queues' rings are in host memory, one after the other from `RINGS` on."""

    def __init__(
        self, revision: int = 0, host_size: int = 16 << 20, clock: VirtualClock | None = None
    ) -> None:
        self.clock = clock or VirtualClock()
        dma = AddressSpace()
        self.chip = Inferentia(dma, self.clock, revision=revision)
        self.port = VirtualPciPort(self.chip, dma, self.clock)
        self.host = Host(dma, host_size)
        self._sequence = 1
        self._rings = RINGS

    def apb(self, offset: int, value: int) -> None:
        self.port.write32(Bar.APB, offset, value)

    def misc(self, register: MiscReg, value: int) -> None:
        self.apb(misc_ram.BASE + register, value)

    def message(self, request: bytes) -> bytes:
        """Send an FWIO request as the driver does; the whole response."""
        memory = self.host.memory
        memory[REQUEST : REQUEST + len(request)] = request
        memory[RESPONSE : RESPONSE + 4] = bytes(4)
        for register, value in (
            (MiscReg.REQUEST_LO, self.host.address(REQUEST)),
            (MiscReg.REQUEST_HI, self.host.address(REQUEST) >> 32),
            (MiscReg.RESPONSE_LO, self.host.address(RESPONSE)),
            (MiscReg.RESPONSE_HI, self.host.address(RESPONSE) >> 32),
        ):
            self.misc(register, value)
        self.misc(MiscReg.DOORBELL, 1)
        size = struct.unpack_from("<H", memory, RESPONSE + 2)[0]
        return bytes(memory[RESPONSE : RESPONSE + size])

    def read(self, *addresses: int) -> list[int]:
        """Registers by their device addresses, through the firmware."""
        self._sequence = self._sequence % 255 + 1
        response = self.message(fwio.pack_read(self._sequence, *addresses))
        assert response[0] == self._sequence
        assert response[1] == fwio.Error.OK
        return list(struct.unpack(f"<{len(addresses)}I", response[4:]))

    def read_apb(self, offset: int) -> int:
        return self.read(address.APB + offset)[0]

    def queue(self, engine: int, queue: int, length: int = 64) -> Queue:
        """A queue initialised by the module's 14 writes, rings in host memory."""
        tx = self._rings
        rx = tx + -(-length * SIZE // 256) * 256
        self._rings = rx + -(-length * SIZE // 256) * 256
        return Queue(self, engine, queue, length, tx, rx)

    def close(self) -> None:
        self.chip.close()
        self.clock.close()
        os.close(self.host.fd)


class Queue:
    """The software's side of a queue pair: fills rings, rings doorbells."""

    def __init__(self, bench: Bench, engine: int, queue: int, length: int, tx: int, rx: int) -> None:
        self.bench = bench
        self.number = engine << 4 | queue
        self.length = length
        self.tx_ring, self.rx_ring = tx, rx
        self.m2s = udma.engine_base(engine) + udma.m2s_queue(queue)
        self.s2m = udma.engine_base(engine) + udma.s2m_queue(queue)
        self.init()

    def init(self) -> None:
        self._next = [0, 0]
        host = self.bench.host
        for base, ring, sw_ctrl, comp_cfg in (
            (self.m2s, self.tx_ring, QueueReg.M2S_SW_CTRL, QueueReg.M2S_COMP_CFG),
            (self.s2m, self.rx_ring, QueueReg.S2M_SW_CTRL, QueueReg.S2M_COMP_CFG),
        ):
            for register, value in (
                (QueueReg.CFG, 0x0300_0000),
                (sw_ctrl, udma.SW_CTRL_RESET),
                (QueueReg.RING_BASE_LO, host.address(ring) & 0xFFFFFFFF),
                (QueueReg.RING_BASE_HI, host.address(ring) >> 32),
                (QueueReg.RING_LENGTH, self.length),
                (comp_cfg, 0),
                (QueueReg.CFG, 0x0303_0000),
            ):
                self.bench.apb(base + register, value)

    def ring_id(self, side: int, ahead: int = 0) -> int:
        return (1 + (self._next[side] + ahead) // self.length) % 4

    def put(self, side: int, *parts: bytes) -> None:
        """Descriptors of which the ring id is ours to fill in: side 0 is TX, 1 is RX."""
        for part in parts:
            control = int.from_bytes(part[:4], "little") | self.ring_id(side) << 24
            at = (self.rx_ring if side else self.tx_ring) + self._next[side] % self.length * SIZE
            self.bench.host.memory[at : at + SIZE] = control.to_bytes(4, "little") + part[4:]
            self._next[side] += 1

    def ring(self, tx: int, rx: int) -> None:
        """The doorbells, RX first."""
        self.bench.apb(self.s2m + QueueReg.TAIL_INCREMENT, rx)
        if tx:
            self.bench.apb(self.m2s + QueueReg.TAIL_INCREMENT, tx)

    def copy(self, *copies: tuple[int, int, int]) -> None:
        """One TX and one RX descriptor for each (source, destination, size), then the doorbells."""
        for at, (source, to, size) in enumerate(copies):
            last = at == len(copies) - 1
            flags = Control.FIRST | Control.LAST | (Control.DMB if last else 0)
            self.put(0, pack_tx(source, size, 0, flags))
            self.put(1, pack_rx(to, size, 0))
        self.ring(len(copies), len(copies))

    def pointers(self) -> tuple[int, int]:
        """Head indices of both sides."""
        m2s, s2m = self.bench.read(
            address.APB + self.m2s + QueueReg.HEAD, address.APB + self.s2m + QueueReg.HEAD
        )
        return m2s & udma.POINTER_MASK, s2m & udma.POINTER_MASK

    def wait(self) -> None:
        """Until all that was put is done; fails after a while."""
        goal = tuple(number % self.length for number in self._next)
        wait_until(lambda: self.pointers() == goal)


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Fails when `condition` stays false: no measure of performance, the limit is far."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the chip did not get there"
        time.sleep(0.0005)


@contextlib.contextmanager
def chain(count: int) -> Iterator[Sequence[Bench]]:
    """Chips in a row on one clock, each with host memory of its own."""
    clock = VirtualClock()
    benches = [Bench(clock=clock) for _ in range(count)]
    connect([bench.chip for bench in benches])
    for index, bench in enumerate(benches):
        bench.misc(MiscReg.DEVICE_ID, index)
    try:
        yield benches
    finally:
        for bench in benches:
            bench.close()
