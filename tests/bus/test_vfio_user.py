# SPDX-License-Identifier: Apache-2.0
"""vfio-user: our client on our server, and the server against what other clients may send (vfio-user.md)."""

from __future__ import annotations

import errno
import mmap
import os
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from npubox.bus.port import BarArea, BarInfo, PciIdentity, Prot
from npubox.bus.vfio_user import protocol
from npubox.bus.vfio_user.channel import Channel, Message
from npubox.bus.vfio_user.client import VfioUserDevice
from npubox.bus.vfio_user.config_space import ConfigSpace
from npubox.bus.vfio_user.listen import Listener
from npubox.bus.vfio_user.protocol import Command, Flag, Irq, IrqFlag, Region, RegionFlag
from npubox.bus.virtual import AddressSpace, DmaFault, InterruptLine, VirtualClock, VirtualPciPort

IDENTITY = PciIdentity("0000:00:1c.0", 0x1D0F, 0x7064, 0xFF, 0x120000)
MEMORY = 1 << 20


class Counter:
    """BAR 0: words that remember, and a doorbell at 0x10 that raises vector 1. BAR 2: memory with a hole."""

    identity = IDENTITY
    vectors = 2

    def __init__(self, line: InterruptLine) -> None:
        self._line = line
        self._words: dict[int, int] = {}
        self.fd = os.memfd_create("bar2", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, 2 * MEMORY)
        areas = (BarArea(0, 4096, self.fd, MEMORY), BarArea(8192, MEMORY - 8192, self.fd, MEMORY + 8192))
        self.bars: Mapping[int, BarInfo] = {0: BarInfo(4096), 2: BarInfo(MEMORY, areas, prefetchable=True)}
        self.resets = 0

    def read32(self, bar: int, offset: int) -> int:
        if bar == 0 and offset == 0xFF0:
            raise RuntimeError("a defect of the device's")
        return self._words.get(offset, 0) if bar == 0 else 0x20000000 + offset

    def write32(self, bar: int, offset: int, value: int) -> None:
        self._words[offset] = value
        if offset == 0x10:
            self._line.fire(1)

    def lend(self) -> bool:
        return False

    def reset(self) -> None:
        self._words.clear()
        self.resets += 1


class Served:
    def __init__(self, path: Path) -> None:
        line = InterruptLine()
        self.path = str(path)
        self.device = Counter(line)
        self.dma = AddressSpace()
        self.clock = VirtualClock()
        self.listener = Listener(VirtualPciPort(self.device, self.dma, self.clock, line), self.path)

    def raw(self, negotiate: bool = True) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(60)
        connection.connect(self.path)
        if negotiate:
            assert ask(connection, Command.VERSION, struct.pack("<HH", 0, 0)).errno == 0
        return connection

    def close(self) -> None:
        self.listener.close()
        self.clock.close()
        os.close(self.device.fd)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    machine = Served(tmp_path / "chip")
    yield machine
    machine.close()


@pytest.fixture
def client(served: Served) -> Iterator[VfioUserDevice]:
    device = VfioUserDevice(served.path, IDENTITY.address)
    yield device
    device.close()


def ask(connection: socket.socket, command: int, payload: bytes = b"", fds: tuple[int, ...] = ()) -> Message:
    channel = Channel(connection)
    channel.send(7, command, 0, payload, fds)
    reply = channel.receive()
    assert reply is not None
    assert (reply.number, reply.command, reply.is_reply) == (7, command, True)
    assert bool(reply.flags & Flag.ERROR) == bool(reply.errno)
    return reply


def test_what_the_client_sees(served: Served, client: VfioUserDevice) -> None:
    assert client.identity == IDENTITY
    assert client.vectors == 2
    assert client.bars[0] == BarInfo(4096)
    assert client.bars[2].size == MEMORY
    assert [(area.start, area.size) for area in client.bars[2].areas] == [(0, 4096), (8192, MEMORY - 8192)]
    assert set(client.bars) == {0, 2}
    area = client.bars[2].areas[1]
    with mmap.mmap(area.fd, 4096, offset=area.offset) as seen:
        seen[:4] = b"same"
    assert os.pread(served.device.fd, 4, MEMORY + 8192) == b"same"


def test_registers(client: VfioUserDevice) -> None:
    for offset in range(0, 64, 4):
        client.write32(0, offset, 0xC0FFEE00 + offset)
    assert [client.read32(0, offset) for offset in range(0, 64, 4)] == [
        0xC0FFEE00 + offset for offset in range(0, 64, 4)
    ]
    assert client.read32(2, 4096) == 0x20001000
    for bar, offset in ((0, 4096), (0, 2), (1, 0), (0, -4)):
        with pytest.raises(OSError, match="no 32-bit word"):
            client.read32(bar, offset)
    client.reset()
    assert client.read32(0, 0) == 0


def test_dma(served: Served, client: VfioUserDevice) -> None:
    fd = os.memfd_create("host", os.MFD_CLOEXEC)
    os.ftruncate(fd, 1 << 16)
    os.pwrite(fd, b"seen", 0x2000)
    client.dma.map(0x10000, fd, 0x1000, 0x4000, Prot.READ)
    assert served.dma.find(0x11000, 4).memory[0x1000:0x1004] == b"seen"
    with pytest.raises(DmaFault):
        served.dma.find(0x11000, 4, write=True)
    with pytest.raises(OSError, match="overlaps") as overlap:
        client.dma.map(0x12000, fd, 0, 0x4000, Prot.READ)
    assert overlap.value.errno == errno.EEXIST
    client.dma.sync_for_device(0x10000, 0x4000)
    client.dma.unmap(0x10000, 0x4000)
    with pytest.raises(DmaFault):
        served.dma.find(0x11000, 4)
    with pytest.raises(OSError, match="no DMA mapping"):
        client.dma.unmap(0x10000, 0x4000)
    os.close(fd)


def test_interrupts(client: VfioUserDevice) -> None:
    raised = threading.Semaphore(0)
    client.on_interrupt(1, raised.release)
    client.write32(0, 0x10, 1)
    assert raised.acquire(timeout=60)
    client.on_interrupt(1, None)
    client.write32(0, 0x10, 1)
    client.read32(0, 0)
    assert not raised.acquire(blocking=False)
    with pytest.raises(OSError, match="vector 2"):
        client.on_interrupt(2, raised.release)


def test_the_next_client_finds_a_reset_device(served: Served, client: VfioUserDevice) -> None:
    fd = os.memfd_create("host", os.MFD_CLOEXEC)
    os.ftruncate(fd, 4096)
    client.dma.map(0, fd, 0, 4096, Prot.READ | Prot.WRITE)
    client.write32(0, 0, 5)
    assert client.read32(0, 0) == 5
    client.close()
    again = VfioUserDevice(served.path, IDENTITY.address)
    assert again.read32(0, 0) == 0
    assert served.device.resets == 1
    again.dma.map(0, fd, 0, 4096, Prot.READ | Prot.WRITE)
    again.close()
    os.close(fd)


def test_a_server_that_dies(served: Served, client: VfioUserDevice, tmp_path: Path) -> None:
    served.listener.close()
    for _ in range(2):
        with pytest.raises(OSError, match="gone") as gone:
            client.read32(0, 0)
        assert gone.value.errno == errno.ENODEV
    served.listener = Listener(
        VirtualPciPort(served.device, served.dma, served.clock), str(tmp_path / "chip")
    )


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nothing: No such file"):
        VfioUserDevice(str(tmp_path / "nothing"), IDENTITY.address)


def test_a_path_that_is_taken(served: Served, tmp_path: Path) -> None:
    port = VirtualPciPort(served.device, served.dma, served.clock)
    with pytest.raises(OSError, match="in use"):
        Listener(port, served.path)
    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(stale))
    Listener(port, str(stale)).close()
    assert not stale.exists()


def test_as_qemu_starts(served: Served) -> None:
    """QEMU's first messages: short regions asked twice, BAR sizing, memory without descriptor, RESET."""
    connection = served.raw(negotiate=False)
    text = b'{"capabilities": {"max_msg_fds": 16, "migration": {"pgsize": 4096}}}\0'
    version = ask(connection, Command.VERSION, struct.pack("<HH", 0, 0) + text)
    assert version.payload.startswith(bytes(4))
    assert ask(connection, Command.DMA_MAP, struct.pack("<IIQQQ", 32, 1, 0, 0xC0000, 0x8000)).errno == 0
    info = ask(connection, Command.DEVICE_GET_INFO, struct.pack("<IIII", 16, 0, 0, 0))
    assert struct.unpack("<IIII", info.payload) == (16, 3, 9, 5)
    short = ask(connection, Command.DEVICE_GET_REGION_INFO, struct.pack("<IIIIQQ", 32, 0, 2, 0, 0, 0))
    argsz, flags, _, capabilities, size, offset = struct.unpack("<IIIIQQ", short.payload)
    assert (argsz, flags, capabilities, size, offset) == (80, 15, 32, MEMORY, MEMORY)
    assert not short.fds
    full = ask(connection, Command.DEVICE_GET_REGION_INFO, struct.pack("<IIIIQQ", argsz, 0, 2, 0, 0, 0))
    assert struct.unpack_from("<HHIIIQQQQ", full.payload, 32) == (1, 1, 0, 2, 0, 0, 4096, 8192, MEMORY - 8192)
    assert len(full.fds) == 1
    full.close_fds()
    for index in (0, 1, 3, 6, 8):
        region = ask(
            connection, Command.DEVICE_GET_REGION_INFO, struct.pack("<IIIIQQ", 32, 0, index, 0, 0, 0)
        )
        assert struct.unpack_from("<I", region.payload, 4)[0] & RegionFlag.MMAP == 0
    for index in range(5):
        irq = ask(connection, Command.DEVICE_GET_IRQ_INFO, struct.pack("<IIII", 16, 0, index, 0))
        assert struct.unpack("<IIII", irq.payload)[3] == (2 if index == Irq.MSIX else 0)
    config = read(connection, Region.CONFIG, 0, 256)
    assert struct.unpack_from("<HH", config) == (0x1D0F, 0x7064)
    assert config[8:12] == bytes([0xFF, 0, 0, 0x12])
    write(connection, Region.CONFIG, 0x18, b"\xff\xff\xff\xff")
    assert struct.unpack("<I", read(connection, Region.CONFIG, 0x18, 4)) == ((1 << 32) - MEMORY | 0xC,)
    write(connection, Region.CONFIG, 0x30, b"\xff\xff\xff\xff")
    assert read(connection, Region.CONFIG, 0x30, 4) == bytes(4)
    assert ask(connection, Command.DEVICE_RESET).errno == 0
    connection.close()


def read(connection: socket.socket, region: int, offset: int, count: int) -> bytes:
    reply = ask(connection, Command.REGION_READ, protocol.REGION_ACCESS.pack(offset, region, count))
    assert reply.errno == 0
    return reply.payload[protocol.REGION_ACCESS.size :]


def write(connection: socket.socket, region: int, offset: int, data: bytes) -> None:
    head = protocol.REGION_ACCESS.pack(offset, region, len(data))
    assert ask(connection, Command.REGION_WRITE, head + data).errno == 0


def test_odd_accesses(served: Served) -> None:
    connection = served.raw()
    write(connection, 0, 0x20, bytes(range(8)))
    assert read(connection, 0, 0x21, 2) == b"\x01\x02"
    assert read(connection, 0, 0x20, 8) == bytes(range(8))
    connection.close()


BAD = [
    (Command.REGION_READ, protocol.REGION_ACCESS.pack(4096, 0, 4), errno.EINVAL),
    (Command.REGION_READ, protocol.REGION_ACCESS.pack(0, 0, 0), errno.EINVAL),
    (Command.REGION_READ, protocol.REGION_ACCESS.pack(0, 9, 4), errno.EINVAL),
    (Command.REGION_READ, protocol.REGION_ACCESS.pack(0, 0, 2 << 20), errno.EINVAL),
    (Command.REGION_READ, protocol.REGION_ACCESS.pack(0xFF0, 0, 4), errno.EIO),
    (Command.REGION_READ, b"short", errno.EINVAL),
    (Command.REGION_WRITE, protocol.REGION_ACCESS.pack(0, 0, 8) + bytes(4), errno.EINVAL),
    (Command.REGION_WRITE, protocol.REGION_ACCESS.pack(1, 0, 1) + bytes(1), errno.EINVAL),
    (Command.DEVICE_GET_REGION_INFO, struct.pack("<IIIIQQ", 32, 0, 9, 0, 0, 0), errno.EINVAL),
    (Command.DEVICE_GET_IRQ_INFO, struct.pack("<IIII", 16, 0, 5, 0), errno.EINVAL),
    (Command.DEVICE_SET_IRQS, struct.pack("<IIIII", 20, IrqFlag.DATA_BOOL | IrqFlag.TRIGGER, 2, 0, 1), 95),
    (Command.DEVICE_SET_IRQS, struct.pack("<IIIII", 20, 0x24, 2, 1, 2), errno.EINVAL),
    (Command.DMA_MAP, struct.pack("<IIQQQ", 32, 3, 0, 0x1001, 0x1000), errno.EINVAL),
    (Command.DMA_UNMAP, struct.pack("<IIQQ", 24, 0, 0x5000, 0x1000), errno.ENOENT),
    (Command.DMA_UNMAP, struct.pack("<IIQQ", 24, 1, 0x5000, 0x1000), errno.EINVAL),
    (Command.VERSION, struct.pack("<HH", 0, 0), errno.EINVAL),
    (Command.DEVICE_FEATURE, bytes(8), errno.ENOTSUP),
    (14, b"", errno.EINVAL),
    (99, b"", errno.EINVAL),
]


@pytest.mark.parametrize(("command", "payload", "expected"), BAD)
def test_bad_requests(served: Served, command: int, payload: bytes, expected: int) -> None:
    connection = served.raw()
    assert ask(connection, command, payload).errno == expected
    Channel(connection).send(1, command, Flag.NO_REPLY, payload)
    assert read(connection, 0, 0, 4) == bytes(4), "no answer where none is wanted, and life goes on"
    connection.close()


def test_files_that_cannot_be_mapped(served: Served) -> None:
    """Shorter than said, or nothing to map at all: and the range is free again."""
    connection = served.raw()
    short = os.memfd_create("short", os.MFD_CLOEXEC)
    os.ftruncate(short, 4096)
    reading, writing = os.pipe()
    for fd, size in ((short, 8192), (reading, 4096)):
        request = struct.pack("<IIQQQ", 32, 3, 0, 0x10000, size)
        assert ask(connection, Command.DMA_MAP, request, (fd,)).errno in (
            errno.EINVAL,
            errno.ENODEV,
            errno.EACCES,
        )
    assert (
        ask(connection, Command.DMA_MAP, struct.pack("<IIQQQ", 32, 3, 0, 0x10000, 4096), (short,)).errno == 0
    )
    for fd in (short, reading, writing):
        os.close(fd)
    connection.close()


def test_the_version_comes_first(served: Served) -> None:
    connection = served.raw(negotiate=False)
    assert ask(connection, Command.DEVICE_RESET).errno == errno.EINVAL
    assert ask(connection, Command.VERSION, struct.pack("<HH", 1, 0)).errno == errno.EINVAL
    connection.close()


def test_descriptors_that_nobody_needs_are_closed(served: Served) -> None:
    reading, writing = os.pipe()
    connection = served.raw()
    access = protocol.REGION_ACCESS.pack(0, 0, 4)
    assert ask(connection, Command.REGION_READ, access, (writing, writing)).errno == 0
    os.close(writing)
    assert os.read(reading, 1) == b"", "the server still holds the pipe"
    os.close(reading)
    connection.close()


@pytest.mark.parametrize(
    "garbage",
    [
        protocol.HEADER.pack(1, 9, 12, 0, 0),
        protocol.HEADER.pack(1, 9, 1 << 30, 0, 0),
        protocol.HEADER.pack(1, 9, 32, protocol.REPLY_TYPE, 0) + bytes(16),
        protocol.HEADER.pack(1, 9, 32, 0, 0) + bytes(3),
        b"GET / HTTP/1.1\r\n",
        b"x",
    ],
)
def test_what_is_no_message_ends_the_connection(served: Served, garbage: bytes) -> None:
    connection = served.raw()
    connection.sendall(garbage)
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(1) == b""
    connection.close()
    other = served.raw()
    assert read(other, 0, 0, 4) == bytes(4)
    other.close()


def test_descriptors_stay_with_their_message() -> None:
    """However the stream was cut: messages before and behind, one longer than what a read takes."""
    ours, theirs = socket.socketpair()
    sender, receiver = Channel(ours), Channel(theirs)
    fds = [os.memfd_create(f"file {number}", os.MFD_CLOEXEC) for number in range(3)]
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
    for number, (size, given) in enumerate([(0, ()), (16, fds[:1]), (8, ()), (200_000, fds[1:]), (4, ())]):
        sender.send(number, Command.DMA_MAP, 0, bytes(size), given)
    sent = [os.fstat(fd).st_ino for fd in fds]
    for number, (size, inodes) in enumerate([(0, []), (16, sent[:1]), (8, []), (200_000, sent[1:]), (4, [])]):
        message = receiver.receive()
        assert message is not None
        assert (message.number, len(message.payload)) == (number, size)
        assert [os.fstat(fd).st_ino for fd in message.fds] == inodes
        message.close_fds()
    sender.close()
    assert receiver.receive() is None
    receiver.close()
    for fd in fds:
        os.close(fd)


def test_configuration_space_sizes_its_bars() -> None:
    config = ConfigSpace(IDENTITY, {0: BarInfo(8 << 20), 4: BarInfo(8 << 30, prefetchable=True)})
    config.write(0x10, b"\xff" * 24)
    assert struct.unpack("<QQQ", config.read(0x10, 24)) == (2**64 - (8 << 20) | 4, 0, 2**64 - (8 << 30) | 12)
    config.write(0, b"\0" * 4)
    assert struct.unpack("<HH", config.read(0, 4)) == (0x1D0F, 0x7064)
