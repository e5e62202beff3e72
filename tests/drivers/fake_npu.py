# SPDX-License-Identifier: Apache-2.0
"""A port with an NPU that ends, faults or hangs when the test says so, and a machine's worth of platform."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from npubox.bus.port import MemoryPool, PlatformDevice, Prot
from npubox.core.node import Node
from npubox.hw.ethosu.registers import Cmd, Reg, Status
from npubox.uapi import drm
from npubox.uapi import ethosu_accel as uapi
from tests.core.manual_clock import ManualClock
from tests.core.refaccel import call

U65_256_ID, U65_256_CONFIG = 0x1006_6001, 0x1000_0008
DRAM, DRAM_SIZE = 0x8000_0000, 1 << 24
SRAM, SRAM_SIZE = 0x2000_0000, 3 * 4096


@dataclass
class FakeDma:
    """Checks what the contract promises; `mapped` is address -> (fd, offset, size, prot)."""

    mapped: dict[int, tuple[int, int, int, Prot]] = field(default_factory=dict)

    def map(self, address: int, fd: int, offset: int, size: int, prot: Prot) -> None:
        if (address | offset | size) % 4096:
            raise OSError(errno.EINVAL, "not pages")
        if any(address < other + row[2] and other < address + size for other, row in self.mapped.items()):
            raise OSError(errno.EEXIST, "overlap")
        self.mapped[address] = (fd, offset, size, prot)

    def unmap(self, address: int, size: int) -> None:
        if address not in self.mapped or self.mapped[address][2] != size:
            raise OSError(errno.ENOENT, "not mapped")
        del self.mapped[address]

    def sync_for_device(self, address: int, size: int) -> None:
        raise AssertionError("this driver's buffers are coherent")

    def sync_for_cpu(self, address: int, size: int) -> None:
        raise AssertionError("this driver's buffers are coherent")


class FakePort:
    """`instant` ends every job at once, on a thread; otherwise the test calls `complete` or `fault`."""

    def __init__(self, *, id_: int = U65_256_ID, config: int = U65_256_CONFIG) -> None:
        self.dma = FakeDma()
        self.clock = ManualClock()
        self.instant = False
        self.runs = 0
        self.resets = 0
        self.reset_polls = 0
        self.stuck_in_reset = False
        self.qread_step = 0
        self.writes: list[tuple[int, int]] = []
        self.registers: dict[int, int] = {Reg.ID: id_, Reg.CONFIG: config}
        self._handler: Callable[[], None] | None = None
        self._guard = threading.RLock()

    def read32(self, offset: int) -> int:
        with self._guard:
            value = self.registers.get(offset, 0)
            if offset == Reg.STATUS and value & Status.RESET_IN_PROGRESS and not self.stuck_in_reset:
                self.reset_polls -= 1
                if self.reset_polls <= 0:
                    self.registers[Reg.STATUS] = 0
            if offset == Reg.QREAD and self.registers.get(Reg.STATUS, 0) & Status.RUNNING:
                self.registers[Reg.QREAD] = value + self.qread_step
            return value

    def write32(self, offset: int, value: int) -> None:
        with self._guard:
            self.writes.append((offset, value))
            if offset == Reg.RESET:
                self.resets += 1
                self.reset_polls = 3
                self.registers[Reg.STATUS] = int(Status.RESET_IN_PROGRESS)
                self.registers[Reg.PROT] = value
                self.registers[Reg.QREAD] = 0
            elif offset == Reg.CMD and value & Cmd.CLEAR_IRQ:
                self.registers[Reg.STATUS] &= ~int(Status.IRQ_RAISED)
            elif offset == Reg.CMD and value & Cmd.RUN:
                self.runs += 1
                self.registers[Reg.STATUS] = int(Status.RUNNING)
                if self.instant:
                    threading.Thread(target=self.complete).start()
            else:
                self.registers[offset] = value

    def on_interrupt(self, index: int, handler: Callable[[], None] | None) -> None:
        assert index == 0
        self._handler = handler

    def lend(self, deadline: int | None) -> bool:
        return False

    @property
    def connected(self) -> bool:
        return self._handler is not None

    def interrupt(self, status: int) -> None:
        with self._guard:
            self.registers[Reg.STATUS] = status
        if self._handler is not None:
            self._handler()

    def complete(self) -> None:
        self.interrupt(Status.IRQ_RAISED | Status.END_REACHED)

    def fault(self, bits: Status = Status.BUS_ERROR) -> None:
        self.interrupt(Status.IRQ_RAISED | bits)


def platform(port: FakePort, *, sram: bool = True, name: str = "4a900000.npu") -> PlatformDevice:
    pool = None
    if sram:
        fd = os.memfd_create("sram")
        os.ftruncate(fd, SRAM_SIZE)
        pool = MemoryPool(SRAM, fd, 0, SRAM_SIZE)
    return PlatformDevice(name, port, DRAM, DRAM + DRAM_SIZE, ("fsl,imx93-npu", "arm,ethos-u65"), pool)


def bo_create(node: Node, size: int, flags: int = 0) -> int:
    handle: int = call(node, uapi.BO_CREATE, size=size, flags=flags).handle
    return handle


def cmdstream(node: Node, data: bytes) -> int:
    buffer = ctypes.create_string_buffer(data, len(data))
    args = call(node, uapi.CMDSTREAM_BO_CREATE, size=len(data), data=ctypes.addressof(buffer))
    handle: int = args.handle
    return handle


def job(cmd_bo: int, sram_size: int = 0, **regions: int) -> uapi.Job:
    """`job(3, r0=1, r1=2)`: handles by region."""
    made = uapi.Job(cmd_bo=cmd_bo, sram_size=sram_size)
    for region, handle in regions.items():
        made.region_bo_handles[int(region[1:])] = handle
    return made


def submit(node: Node, *jobs: uapi.Job) -> None:
    array = (uapi.Job * len(jobs))(*jobs)
    call(node, uapi.SUBMIT, jobs=ctypes.addressof(array), job_count=len(jobs))


def bo_wait(node: Node, handle: int, timeout_ns: int = 0) -> None:
    call(node, uapi.BO_WAIT, handle=handle, timeout_ns=timeout_ns)


def gem_close(node: Node, handle: int) -> None:
    call(node, drm.GEM_CLOSE, handle=handle)
