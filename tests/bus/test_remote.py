# SPDX-License-Identifier: Apache-2.0
"""The lower waist over a socket: a device at the other end, here on a thread of this process."""

from __future__ import annotations

import errno
import mmap
import os
import queue
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from npubox.bus.host import DeviceHost
from npubox.bus.port import Prot
from npubox.bus.remote import RemoteLink, RemotePort
from npubox.bus.virtual import AddressSpace, DmaFault
from npubox.bus.wire import Kind, pack
from tests.core.descriptors import open_descriptors

PAGE = mmap.PAGESIZE
CMD, ADDRESS, LAST, TIME = 0, 4, 8, 12


class Doubler:
    """Doubles the byte at ADDRESS for CMD 1 and interrupts; CMD 2 passes 500 ns; keeps each write."""

    def __init__(self, host: DeviceHost, dma: AddressSpace) -> None:
        self._host = host
        self._dma = dma
        self._address = 0
        self.writes: list[tuple[int, int]] = []

    def read32(self, offset: int) -> int:
        return self.writes[-1][1] if offset == LAST else len(self.writes)

    def write32(self, offset: int, value: int) -> None:
        self.writes.append((offset, value))
        if offset == ADDRESS:
            self._address = value
        elif offset == CMD and value == 1:
            memory = self._dma.find(self._address, 1, write=True)
            at = self._address - memory.address
            memory.memory[at] = memory.memory[at] * 2
            self._host.interrupt(3)
        elif offset == CMD and value == 2:
            self._host.clock.advance_to(self._host.clock.now() + 500)


class Rig:
    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.reports: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.host = DeviceHost(self._theirs)
        self.dma = AddressSpace()
        self.device = Doubler(self.host, self.dma)
        self.thread = threading.Thread(
            target=self.host.run, args=(self.device, self.dma, self.orders.put), daemon=True
        )
        self.thread.start()
        self.link = RemoteLink(self._ours, self.reports.put)
        self.port = RemotePort(self.link)

    def kill(self) -> None:
        self._theirs.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.link.close()
    made.thread.join(5)
    made.host.clock.close()


@pytest.fixture
def memory() -> Iterator[int]:
    fd = os.memfd_create("test")
    os.ftruncate(fd, 4 * PAGE)
    yield fd
    os.close(fd)


def test_registers_keep_their_order(rig: Rig) -> None:
    for value in range(500):
        rig.port.write32(ADDRESS, value)
    assert rig.port.read32(LAST) == 499
    assert rig.device.writes == [(ADDRESS, value) for value in range(500)]


def test_dma_and_interrupts(rig: Rig, memory: int) -> None:
    came: queue.SimpleQueue[str] = queue.SimpleQueue()
    rig.port.on_interrupt(3, lambda: came.put(threading.current_thread().name))
    os.pwrite(memory, b"\x15", PAGE + 7)
    rig.port.dma.map(0x8000_0000, memory, PAGE, PAGE, Prot.READ | Prot.WRITE)
    rig.port.write32(ADDRESS, 0x8000_0007)
    rig.port.write32(CMD, 1)
    assert came.get(timeout=5) == "npubox-device-work"
    assert os.pread(memory, 1, PAGE + 7) == b"\x2a"
    rig.port.dma.unmap(0x8000_0000, PAGE)
    rig.port.read32(CMD)  # everything before it has been done
    with pytest.raises(DmaFault):
        rig.dma.find(0x8000_0007, 1)


def test_an_interrupt_handler_may_read_registers(rig: Rig, memory: int) -> None:
    seen: queue.SimpleQueue[int] = queue.SimpleQueue()
    rig.port.on_interrupt(3, lambda: seen.put(rig.port.read32(LAST)))
    rig.port.dma.map(0, memory, 0, PAGE, Prot.READ | Prot.WRITE)
    rig.port.write32(CMD, 1)
    assert seen.get(timeout=5) == 1


@pytest.mark.parametrize(
    ("address", "offset", "size", "error"),
    [
        (1, 0, PAGE, errno.EINVAL),
        (0, 1, PAGE, errno.EINVAL),
        (0, 0, 0, errno.EINVAL),
        (0x10000, 0, PAGE, errno.EEXIST),
        (0xF000, 0, 2 * PAGE, errno.EEXIST),
    ],
)
def test_mapping_rules_are_those_in_process(
    rig: Rig, memory: int, address: int, offset: int, size: int, error: int
) -> None:
    for space in (rig.port.dma, AddressSpace()):
        space.map(0x10000, memory, 0, 2 * PAGE, Prot.READ)
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is checked below
            space.map(address, memory, offset, size, Prot.READ)
        assert caught.value.errno == error
        with pytest.raises(OSError) as caught:  # noqa: PT011
            space.unmap(0x10000, PAGE)
        assert caught.value.errno == errno.ENOENT
        space.unmap(0x10000, 2 * PAGE)


def test_the_devices_time(rig: Rig) -> None:
    fired: queue.SimpleQueue[int] = queue.SimpleQueue()
    rig.port.clock.call_at(900, lambda: fired.put(1))
    rig.port.clock.call_at(800, lambda: fired.put(2)).cancel()
    rig.port.write32(CMD, 2)
    rig.port.read32(CMD)
    assert rig.port.clock.now() == 500
    rig.port.write32(CMD, 2)
    assert fired.get(timeout=5) == 1
    rig.port.clock.sleep(250)
    assert rig.port.clock.now() == 1250
    assert fired.empty()


def test_the_control_channel(rig: Rig) -> None:
    rig.link.post(pack(Kind.ORDER, data=b"hang"))
    assert rig.orders.get(timeout=5) == b"hang"
    rig.host.report(b"hung")
    assert rig.reports.get(timeout=5) == b"hung"


def test_a_dead_device_is_enodev_at_once(rig: Rig, memory: int) -> None:
    lost = threading.Event()
    rig.link.on_lost(lost.set)
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()

    def sleeper() -> None:
        try:
            rig.host.clock.begin_work()  # so that the sleep waits for the device
            rig.port.clock.sleep(10**9)
        except OSError as error:
            waiting.put(error.errno or 0)

    threading.Thread(target=sleeper, daemon=True).start()
    time.sleep(0.05)
    rig.kill()
    assert lost.wait(5)
    assert waiting.get(timeout=5) == errno.ENODEV
    with pytest.raises(OSError) as caught:  # noqa: PT011
        rig.port.read32(0)
    assert caught.value.errno == errno.ENODEV
    rig.port.write32(0, 1)
    rig.port.dma.map(0, memory, 0, PAGE, Prot.READ)
    rig.host.clock.end_work()


def test_a_driver_never_waits_for_a_device_that_does_not_listen(memory: int) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = open_descriptors()
    link = RemoteLink(ours, lambda _: None)
    port = RemotePort(link)
    start = time.monotonic()
    for value in range(5000):
        port.write32(0, value)
        port.dma.map(value * PAGE, memory, 0, PAGE, Prot.READ)
    assert time.monotonic() - start < 5
    theirs.close()
    while open_descriptors() > before:
        assert time.monotonic() - start < 10, "descriptors that were never sent stay"
        time.sleep(0.01)
    link.close()
