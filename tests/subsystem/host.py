# SPDX-License-Identifier: Apache-2.0
"""A host of one subsystem, as small as it can be: memory, the two rings, messages. It is no driver."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from collections.abc import Sequence
from typing import Any

from npubox.bus.incoherent import IncoherentSpace
from npubox.bus.port import Prot
from npubox.bus.virtual import AddressSpace, InterruptLine, VirtualClock, VirtualPort
from npubox.devices.ethosu_npu.configuration import CONFIGURATIONS
from npubox.devices.ethosu_subsystem.configuration import Range, SubsystemConfiguration
from npubox.devices.ethosu_subsystem.faults import InferenceReport
from npubox.devices.ethosu_subsystem.subsystem import VirtualSubsystem
from npubox.hw.ethosu import core_interface as ci
from npubox.hw.ethosu.mailbox import Doorbell, MailboxReg, ResetLine

MIB = 1 << 20
MEMORY = Range(0x6000_0000, 64 * MIB)
QUEUE_BYTES = 0x4000
PATIENCE = 60  # seconds: only a test that fails waits so long


def configuration(accelerator: str = "ethos-u65-256", npus: int = 1, **other: Any) -> SubsystemConfiguration:
    return SubsystemConfiguration(
        name="subsystem",
        npu=CONFIGURATIONS[accelerator],
        npus=npus,
        frequency=1_000_000_000,
        in_queue=Range(MEMORY.address, QUEUE_BYTES),
        out_queue=Range(MEMORY.address + QUEUE_BYTES, QUEUE_BYTES),
        arena=Range(0x2000_0000, npus * 16 * MIB),
        fast_memory=Range(0x1000_0000, npus * 0x80000) if "u65" in accelerator else None,
        flash=0x0800_0000,
        **other,
    )


class Host:
    """Powers a subsystem up and boots it. `answers` are what came back, in order; `reports` are those of the
    control channel."""

    def __init__(self, built: SubsystemConfiguration, *, incoherent: bool = False) -> None:
        self.clock = VirtualClock()
        self.dma = IncoherentSpace() if incoherent else AddressSpace()
        self.answers: list[tuple[ci.MessageType, Any]] = []
        self.reports: list[InferenceReport] = []
        self.bad_messages = 0
        self._came = threading.Condition()
        self._header = ci.QueueHeaderShort if built.short_header else ci.QueueHeader
        self._fd = os.memfd_create("host")
        os.ftruncate(self._fd, MEMORY.size)
        self.memory = mmap.mmap(self._fd, MEMORY.size)
        queues = 2 * QUEUE_BYTES
        self.dma.map(MEMORY.address, self._fd, 0, queues, Prot.READ | Prot.WRITE)
        prot = Prot.READ | Prot.WRITE | Prot.CACHED
        self.dma.map(MEMORY.address + queues, self._fd, queues, MEMORY.size - queues, prot)
        line = InterruptLine()
        self.subsystem = VirtualSubsystem(built, self.dma, self.clock, line, self)
        self.port = VirtualPort(self.subsystem, self.dma, self.clock, line)
        self.port.on_interrupt(0, self.take_messages)
        self.in_queue = self._header.from_buffer(self.memory, 0)
        self.out_queue = self._header.from_buffer(self.memory, QUEUE_BYTES)
        self._next = MEMORY.address + queues
        self._next_id = 1
        self.boot()

    def boot(self) -> None:
        """Reset and wait for the firmware (facts, ethosu-linux.md §2.5)."""
        self.port.write32(MailboxReg.RESET, ResetLine.ASSERTED)
        self.in_queue.size = 0
        self.in_queue.read = self.in_queue.write = ci.QUEUE_RESET_INDEX
        self.port.write32(MailboxReg.RESET, 0)
        deadline = self.clock.now() + 10**9
        while not self.in_queue.size or ci.QUEUE_RESET_INDEX in (self.in_queue.read, self.in_queue.write):
            assert self.clock.now() < deadline, "the firmware does not boot"
            self.clock.sleep(10**6)

    # Memory

    def allocate(self, size: int, align: int = mmap.PAGESIZE) -> Range:
        start = -(-self._next // align) * align
        self._next = start + size
        assert self._next <= MEMORY.address + MEMORY.size
        return Range(start, size)

    def put(self, data: bytes, *, sync: bool = True) -> Range:
        """`data` in memory of its own."""
        place = self.allocate(len(data))
        self.write(place, data, sync=sync)
        return place

    def write(self, place: Range, data: bytes, *, sync: bool = True) -> None:
        at = place.address - MEMORY.address
        self.memory[at : at + len(data)] = data
        if sync and data:
            self.dma.sync_for_device(place.address, len(data))

    def get(self, place: Range, *, sync: bool = True) -> bytes:
        if sync and place.size:
            self.dma.sync_for_cpu(place.address, place.size)
        at = place.address - MEMORY.address
        return self.memory[at : at + place.size]

    # Messages

    def send(self, kind: int, payload: Any = None, *, length: int | None = None, ring: bool = True) -> None:
        data = b"" if payload is None else bytes(payload)
        header = ci.Message(ci.MAGIC, kind, len(data) if length is None else length)
        self.send_bytes(bytes(header) + data, ring=ring)

    def send_bytes(self, data: bytes, *, ring: bool = True) -> None:
        base, size, at = ctypes.sizeof(self._header), self.in_queue.size, self.in_queue.write
        for number, value in enumerate(data):
            self.memory[base + (at + number) % size] = value
        self.in_queue.write = (at + len(data)) % size
        if ring:
            self.ring()

    def ring(self) -> None:
        self.port.write32(MailboxReg.TX_SET, Doorbell.RING)

    def settle(self) -> None:
        """Wait until nothing works any more: all is done, or stuck. Takes 100 ms of device time."""
        self.clock.sleep(10**8)

    def ask(self, kind: int, payload: Any = None) -> Any:
        """Send a message and give the payload of the next answer."""
        before = len(self.answers)
        self.send(kind, payload)
        return self.answer(before)[1]

    def answer(self, index: int) -> tuple[ci.MessageType, Any]:
        with self._came:
            assert self._came.wait_for(lambda: len(self.answers) > index, PATIENCE), "no answer"
        return self.answers[index]

    def infer(
        self,
        network: ci.Network,
        inputs: Sequence[Range],
        outputs: Sequence[Range],
        *,
        events: Sequence[int] = (),
        cycles: bool = False,
        ring: bool = True,
    ) -> int:
        """Send an inference request; its id."""
        request = ci.InferenceReq(user_arg=self._next_id, network=network)
        self._next_id += 1
        request.ifm_count, request.ofm_count = len(inputs), len(outputs)
        for number, place in enumerate(inputs):
            request.ifm[number] = ci.Buffer(place.address, place.size)
        for number, place in enumerate(outputs):
            request.ofm[number] = ci.Buffer(place.address, place.size)
        request.pmu_event_config[: len(events)] = list(events)
        request.pmu_cycle_counter_enable = cycles
        self.send(ci.MessageType.INFERENCE_REQ, request, ring=ring)
        return int(request.user_arg)

    def result(self, user_arg: int) -> ci.InferenceRsp:
        """The answer to an inference, whatever else came before it."""

        def found() -> list[Any]:
            kind = ci.MessageType.INFERENCE_RSP
            return [rsp for type_, rsp in self.answers if type_ == kind and rsp.user_arg == user_arg]

        with self._came:
            assert self._came.wait_for(found, PATIENCE), f"no answer to inference {user_arg}"
        (answer,) = found()
        assert isinstance(answer, ci.InferenceRsp)
        return answer

    def take_messages(self) -> None:
        self.port.write32(MailboxReg.RX_CLR, Doorbell.RING)
        with self._came:
            while self._receive():
                pass
            self._came.notify_all()

    def _receive(self) -> bool:
        queue, base = self.out_queue, QUEUE_BYTES + ctypes.sizeof(self._header)
        if queue.read == queue.write:
            return False
        if queue.write >= queue.size:
            self.bad_messages += 1
            return False
        header = ci.Message.from_buffer_copy(self._take(queue, base, ctypes.sizeof(ci.Message)))
        if header.magic != ci.MAGIC:
            self.bad_messages += 1
            queue.read = queue.write
            return False
        kind = ci.MessageType(header.type)
        payload = self._take(queue, base, header.length)
        assert header.length == ctypes.sizeof(ci.PAYLOADS[kind])
        self.answers.append((kind, ci.PAYLOADS[kind].from_buffer_copy(payload)))
        return True

    def _take(self, queue: Any, base: int, count: int) -> bytes:
        data = bytes(self.memory[base + (queue.read + number) % queue.size] for number in range(count))
        queue.read = (queue.read + count) % queue.size
        return data

    # The control channel

    def inference_finished(self, report: InferenceReport) -> None:
        self.reports.append(report)

    def close(self) -> None:
        self.subsystem.close()
        self.clock.close()
        os.close(self._fd)

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def in_buffer(place: Range) -> ci.Network:
    return ci.Network(ci.NetworkType.BUFFER, place.address, place.size)


def by_index(index: int) -> ci.Network:
    return ci.Network(ci.NetworkType.INDEX, index, 0)
