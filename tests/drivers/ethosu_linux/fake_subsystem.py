# SPDX-License-Identifier: Apache-2.0
"""A subsystem whose firmware answers at once, later or wrongly, as a test says; programs with descriptors."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from npubox.bus.port import DmaRange, MemoryPool, PlatformDevice
from npubox.core.caller import Caller
from npubox.core.file import OpenFile
from npubox.core.pending import Pending
from npubox.core.usermem import OwnMemory
from npubox.drivers.misc.ethosu.drv import EthosuDevice, probe
from npubox.drivers.misc.ethosu.file import Policy
from npubox.hw.ethosu import core_interface as core
from npubox.hw.ethosu.mailbox import Doorbell, MailboxReg, ResetLine
from npubox.uapi.ioctl import Ioctl
from tests.core.manual_clock import ManualClock
from tests.drivers.fake_npu import FakeDma

QUEUE_BYTES = 0x4000
HOST_START, HOST_END = 0x8000_0000, 0x8100_0000
RANGE = DmaRange(device=0x6000_0000, cpu=0x8000_0000, size=0x2000_0000)
CAPABILITIES = {
    "version_status": 1,
    "version_minor": 2,
    "version_major": 3,
    "product_major": 4,
    "arch_patch_rev": 5,
    "arch_minor_rev": 6,
    "arch_major_rev": 7,
    "driver_patch_rev": 8,
    "driver_minor_rev": 9,
    "driver_major_rev": 10,
    "macs_per_cc": 11,
    "cmd_stream_version": 12,
    "custom_dma": 13,
}
Answer = tuple[core.MessageType, ctypes.LittleEndianStructure]


class FakeRing:
    """The firmware's end of a ring, read and written a byte at a time."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.data_bytes = QUEUE_BYTES - ctypes.sizeof(core.QueueHeader)

    @property
    def header(self) -> core.QueueHeader:
        size = ctypes.sizeof(core.QueueHeader)
        return core.QueueHeader.from_buffer_copy(os.pread(self._fd, size, 0))

    def set(self, name: str, value: int) -> None:
        os.pwrite(self._fd, value.to_bytes(4, "little"), getattr(core.QueueHeader, name).offset)

    def start(self) -> None:
        self.set("read", 0)
        self.set("write", 0)
        self.set("size", self.data_bytes)

    def read(self, count: int) -> bytes:
        header = self.header
        assert count <= (header.write - header.read) % header.size
        got = bytes(self._byte(header.read + at) for at in range(count))
        self.set("read", (header.read + count) % header.size)
        return got

    def write(self, data: bytes) -> None:
        header = self.header
        for at, value in enumerate(data):
            place = (header.write + at) % header.size
            os.pwrite(self._fd, bytes([value]), ctypes.sizeof(core.QueueHeader) + place)
        self.set("write", (header.write + len(data)) % header.size)

    def _byte(self, at: int) -> int:
        place = ctypes.sizeof(core.QueueHeader) + at % self.data_bytes
        return os.pread(self._fd, 1, place)[0]


def queue(address: int) -> MemoryPool:
    fd = os.memfd_create("queue", os.MFD_CLOEXEC)
    os.ftruncate(fd, QUEUE_BYTES)
    return MemoryPool(address, fd, 0, QUEUE_BYTES)


class FakeSubsystem:
    """A port. The firmware reads what it is sent when the doorbell rings, and answers then too, unless it is
    `deaf`, or `holds` says which kinds wait for `answer_held`. An inference adds 1 to each byte it reads."""

    def __init__(self) -> None:
        self.dma = FakeDma()
        self.clock = ManualClock()
        self.queues = {"in_queue": queue(0x8400_0000), "out_queue": queue(0x8401_0000)}
        self.inbound = FakeRing(self.queues["in_queue"].fd)
        self.outbound = FakeRing(self.queues["out_queue"].fd)
        self.received: list[Answer] = []
        self.holds: set[core.MessageType] = set()
        self.held: list[Answer] = []
        self.deaf = False
        self.dead = False
        self.boots = 0
        self.in_reset = True
        self.network_status = core.CoreStatus.OK
        self.description = b"network"
        self._handler: Callable[[], None] | None = None

    def read32(self, offset: int) -> int:
        assert offset == MailboxReg.TX_STAT, f"a read of register {offset:#x}"
        return 0

    def write32(self, offset: int, value: int) -> None:
        if offset == MailboxReg.RESET:
            self.in_reset = bool(value & ResetLine.ASSERTED)
            if not self.in_reset and not self.dead:
                self.boots += 1
                self.held.clear()
                self.inbound.start()
                self.outbound.start()
        elif offset == MailboxReg.TX_SET:
            assert value == Doorbell.RING
            self.process()
        else:
            assert (offset, value) == (MailboxReg.RX_CLR, Doorbell.RING)

    def on_interrupt(self, index: int, handler: Callable[[], None] | None) -> None:
        assert index == 0
        self._handler = handler

    def lend(self, deadline: int | None) -> bool:
        return False

    def process(self) -> None:
        """Read what was sent and answer it."""
        while not self.deaf and self.inbound.header.read != self.inbound.header.write:
            head = core.Message.from_buffer_copy(self.inbound.read(ctypes.sizeof(core.Message)))
            assert head.magic == core.MAGIC
            kind = core.MessageType(head.type)
            assert head.length == ctypes.sizeof(core.PAYLOADS[kind])
            message = kind, core.PAYLOADS[kind].from_buffer_copy(self.inbound.read(head.length))
            self.received.append(message)
            if kind in self.holds:
                self.held.append(message)
            else:
                self.answer(*message)

    def answer_held(self) -> None:
        held, self.held = self.held, []
        for message in held:
            self.answer(*message)

    def answer(self, kind: core.MessageType, message: Any) -> None:
        match kind:
            case core.MessageType.PING:
                self.send(core.MessageType.PONG, core.Empty())
            case core.MessageType.PONG:
                pass
            case core.MessageType.VERSION_REQ:
                self.send(core.MessageType.VERSION_RSP, core.VersionRsp(0, 2, 0, 0))
            case core.MessageType.CAPABILITIES_REQ:
                self.send(
                    core.MessageType.CAPABILITIES_RSP, core.CapabilitiesRsp(message.user_arg, **CAPABILITIES)
                )
            case core.MessageType.NETWORK_INFO_REQ:
                info = core.NetworkInfoRsp(
                    user_arg=message.user_arg, desc=self.description, status=self.network_status
                )
                info.ifm_count, info.ifm_size[0] = 1, 4
                info.ofm_count, info.ofm_size[0] = 1, 4
                self.send(core.MessageType.NETWORK_INFO_RSP, info)
            case core.MessageType.NETWORK_LAYOUT_REQ:
                self.send(core.MessageType.NETWORK_LAYOUT_RSP, self._layout(message.user_arg))
            case core.MessageType.INFERENCE_REQ:
                self.send(core.MessageType.INFERENCE_RSP, self.infer(message))
            case core.MessageType.CANCEL_INFERENCE_REQ:
                self._cancel(message)
            case _:
                raise AssertionError(kind)

    def send(
        self, kind: core.MessageType, payload: ctypes.LittleEndianStructure, magic: int = core.MAGIC
    ) -> None:
        self.outbound.write(bytes(core.Message(magic, kind, ctypes.sizeof(payload))) + bytes(payload))
        self.ring()

    def ring(self) -> None:
        if self._handler is not None:
            self._handler()

    def infer(self, message: core.InferenceReq) -> core.InferenceRsp:
        data = b"".join(self.memory(ifm) for ifm in message.ifm[: message.ifm_count])
        answer = core.InferenceRsp(user_arg=message.user_arg, ofm_count=message.ofm_count)
        for index, ofm in enumerate(message.ofm[: message.ofm_count]):
            answer.ofm_size[index] = min(len(data), ofm.size)
            self.store(ofm.ptr, bytes((value + 1) & 0xFF for value in data[: ofm.size]))
        answer.pmu_event_config[:] = message.pmu_event_config
        answer.pmu_event_count[:] = [event * 10 for event in message.pmu_event_config]
        answer.pmu_cycle_counter_enable = message.pmu_cycle_counter_enable
        answer.pmu_cycle_counter_count = 1 << 33 if message.pmu_cycle_counter_enable else 0
        return answer

    def memory(self, buffer: core.Buffer | core.Network) -> bytes:
        fd, offset = self._find(buffer.ptr, buffer.size)
        return os.pread(fd, buffer.size, offset)

    def store(self, address: int, data: bytes) -> None:
        fd, offset = self._find(address, len(data))
        os.pwrite(fd, data, offset)

    def sent(self, kind: core.MessageType) -> list[Any]:
        """What the driver sent of one kind."""
        return [message for sent, message in self.received if sent is kind]

    def _find(self, address: int, size: int) -> tuple[int, int]:
        for start, (fd, offset, length, _) in self.dma.mapped.items():
            if start <= address and address + size <= start + length:
                return fd, offset + address - start
        raise AssertionError(f"nothing is mapped at {address:#x}+{size}")

    def _layout(self, user_arg: int) -> core.NetworkLayoutRsp:
        layout = core.NetworkLayoutRsp(
            user_arg=user_arg,
            desc=self.description,
            is_vela=1,
            arena_size=64,
            ifm_count=1,
            ofm_count=1,
            status=self.network_status,
        )
        layout.ifm[0] = core.TensorLayout(4, 9, 16, 2, (1, 4))
        layout.ofm[0] = core.TensorLayout(4, 9, 32, 2, (1, 4))
        return layout

    def _cancel(self, message: core.CancelInferenceReq) -> None:
        waiting = [
            held
            for held in self.held
            if held[0] is core.MessageType.INFERENCE_REQ and held[1].user_arg == message.inference_handle
        ]
        for held in waiting:
            self.held.remove(held)
            self.send(
                core.MessageType.INFERENCE_RSP,
                core.InferenceRsp(user_arg=message.inference_handle, status=core.CoreStatus.ABORTED),
            )
        status = core.CoreStatus.OK if waiting else core.CoreStatus.ERROR
        self.send(
            core.MessageType.CANCEL_INFERENCE_RSP, core.CancelInferenceRsp(message.user_arg, int(status))
        )


@dataclass
class Descriptors:
    """A descriptor table that counts nothing but what it is given."""

    files: dict[int, OpenFile] = field(default_factory=dict)
    most: int = 1000

    def install(self, file: OpenFile, flags: int) -> int:
        if len(self.files) >= self.most:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        assert flags == os.O_RDWR | os.O_CLOEXEC
        number = next(number for number in range(100, 2000) if number not in self.files)
        self.files[number] = file
        return number

    def lookup(self, fd: int) -> OpenFile | None:
        if fd == 0:
            return None
        if fd not in self.files:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self.files[fd]

    def duplicate(self, fd: int) -> int:
        raise AssertionError("this driver duplicates nothing")


class Program:
    """A program that has opened the node: `fd` 100 is the device."""

    def __init__(self, device: EthosuDevice) -> None:
        self.files = Descriptors()
        self.caller = Caller(os.getpid(), lambda: False, OwnMemory(), self.files)
        self.device = self.files.install(device.open(os.O_RDWR, self.caller), os.O_RDWR | os.O_CLOEXEC)

    def begin(self, fd: int, request: int, address: int) -> int | Pending:
        return self.files.files[fd].ioctl(request, address, self.caller)

    def ioctl(self, fd: int, request: int, address: int) -> int:
        result = self.begin(fd, request, address)
        return result.wait() if isinstance(result, Pending) else result

    def call(self, on: int, declared: Ioctl[Any], /, **fields: Any) -> Any:
        """One ioctl on a struct with these fields; gives the struct and the result."""
        args = declared.struct(**fields)
        result = self.ioctl(on, declared.number, ctypes.addressof(args))
        return args, result

    def make(self, on: int, declared: Ioctl[Any], /, **fields: Any) -> int:
        return int(self.call(on, declared, **fields)[1])

    def close(self, fd: int) -> None:
        self.files.files.pop(fd).release()

    def exit(self) -> None:
        for fd in list(self.files.files):
            self.close(fd)


@contextmanager
def plugged(policy: Policy = Policy.STRICT) -> Iterator[tuple[FakeSubsystem, EthosuDevice]]:
    port = FakeSubsystem()
    platform = PlatformDevice(
        "ethosu@84000000",
        port,
        HOST_START,
        HOST_END,
        ("arm,ethosu",),
        memory=port.queues,
        dma_ranges=(RANGE,),
    )
    device = probe(platform, policy)
    try:
        yield port, device
    finally:
        device.unplug()
        for pool in port.queues.values():
            os.close(pool.fd)
