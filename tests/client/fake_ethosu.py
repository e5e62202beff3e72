# SPDX-License-Identifier: Apache-2.0
"""An `ethosu` node that a test holds in its hands: jobs run when the test lets them, as it says.

It computes nothing by itself: `compute` is called with the arena's bytes. The real driver and the real
virtual NPU are tested elsewhere; this one is for the interleavings they cannot be brought into.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from npubox.client.node import Opened
from npubox.uapi import drm
from npubox.uapi import ethosu_accel as uapi

ARENA_REGION = 1
PAGE = 4096


@dataclass
class Fault:
    reason: str
    command: str | None = None
    offset: int | None = None
    address: int | None = None


@dataclass
class Report:
    cycles: int
    start_ns: int
    end_ns: int
    fault: Fault | None = None
    error: int = 0


@dataclass
class Info:
    accelerator: str = "ethos-u65-256"
    vela_system_config: str | None = None
    vela_memory_mode: str | None = None
    policy: str = "mainline"


@dataclass
class Object:
    offset: int
    size: int
    jobs: int = 0  # unfinished ones that write it


class FakeNode:
    """Jobs run in order on a thread of their own while `running` is set."""

    def __init__(self, compute: Callable[[mmap.mmap], None], driver: bytes = b"ethosu") -> None:
        self.client_id = 7
        self.objects: dict[int, Object] = {}
        self.jobs: list[uapi.Job] = []
        self.reports: dict[int, Report] = {}
        self.outcome: Callable[[int], Report] = lambda _: Report(cycles=1000, start_ns=0, end_ns=2000)
        self.running = threading.Event()
        self.running.set()
        self.closed = 0
        self.sram_size = 384 << 10
        self.interruptions = 0  # how many coming ioctls answer EINTR first
        self._compute = compute
        self._driver = driver
        self._fd = os.memfd_create("fake-ethosu")
        os.ftruncate(self._fd, 1 << 40)
        self._next = 1 << 32
        self._queue: list[tuple[Object, mmap.mmap]] = []  # arena and its memory, held by the job
        self._changed = threading.Condition()
        self._worker = threading.Thread(target=self._work, daemon=True)
        self._worker.start()
        self._handlers = {
            drm.VERSION.number: (drm.Version, self._version),
            drm.GEM_CLOSE.number: (drm.GemClose, self._gem_close),
            uapi.DEV_QUERY.number: (uapi.DevQuery, self._dev_query),
            uapi.BO_CREATE.number: (uapi.BoCreate, self._bo_create),
            uapi.BO_WAIT.number: (uapi.BoWait, self._bo_wait),
            uapi.BO_MMAP_OFFSET.number: (uapi.BoMmapOffset, self._bo_mmap_offset),
            uapi.CMDSTREAM_BO_CREATE.number: (uapi.CmdstreamBoCreate, self._cmdstream_bo_create),
            uapi.SUBMIT.number: (uapi.Submit, self._submit),
        }

    def ioctl(self, request: int, address: int) -> int:
        if self.closed:
            raise OSError(errno.EBADF, "used after close")
        if self.interruptions:
            self.interruptions -= 1
            raise OSError(errno.EINTR, "interrupted")
        struct, handler = self._handlers[request]
        handler(struct.from_address(address))  # type: ignore[operator]
        return 0

    def adopt(self, fd: int) -> FakeNode:
        raise AssertionError("this driver gives no descriptors")

    def fileno(self) -> int:
        return self._fd

    def mmap(self, length: int, prot: int, flags: int, offset: int) -> mmap.mmap:
        return mmap.mmap(self._fd, length, flags=flags, prot=prot, offset=offset)

    def close(self) -> None:
        self.closed += 1
        os.close(self._fd)

    def _version(self, version: drm.Version) -> None:
        if version.name:
            ctypes.memmove(version.name, self._driver, min(version.name_len, len(self._driver)))
        version.name_len = len(self._driver)

    def _dev_query(self, query: uapi.DevQuery) -> None:
        info = uapi.NpuInfo(id=0x10066001, config=0x10003008, sram_size=self.sram_size)
        ctypes.memmove(query.pointer, ctypes.addressof(info), query.size)

    def _bo_create(self, create: uapi.BoCreate) -> None:
        with self._changed:
            create.handle = next(handle for handle in range(1, 1 << 20) if handle not in self.objects)
            self.objects[create.handle] = Object(self._next, create.size)
            self._next += (create.size + PAGE - 1) // PAGE * PAGE

    def _cmdstream_bo_create(self, create: uapi.CmdstreamBoCreate) -> None:
        if create.size % 4:
            raise OSError(errno.EINVAL, "not whole words")
        made = uapi.BoCreate(size=create.size)
        self._bo_create(made)
        create.handle = made.handle

    def _bo_mmap_offset(self, where: uapi.BoMmapOffset) -> None:
        where.offset = self.objects[where.handle].offset

    def _gem_close(self, close: drm.GemClose) -> None:
        with self._changed:
            if self.objects.pop(close.handle, None) is None:
                raise OSError(errno.EINVAL, "no such handle")

    def _bo_wait(self, wait: uapi.BoWait) -> None:
        target = self.objects.get(wait.handle)
        if target is None:
            raise OSError(errno.EINVAL, "no such handle")
        left = max(0, wait.timeout_ns - time.monotonic_ns()) / 1e9
        with self._changed:
            if not self._changed.wait_for(lambda: not target.jobs, min(left, 60)):
                raise OSError(errno.ETIME, "not finished")

    def _submit(self, submit: uapi.Submit) -> None:
        job = uapi.Job.from_buffer_copy(uapi.Job.from_address(submit.jobs))
        with self._changed:
            arena = self.objects[job.region_bo_handles[ARENA_REGION]]
            arena.jobs += 1
            access = mmap.PROT_READ | mmap.PROT_WRITE
            self._queue.append((arena, self.mmap(arena.size, access, mmap.MAP_SHARED, arena.offset)))
            self.jobs.append(job)
            self._changed.notify_all()

    def _work(self) -> None:
        for sequence in range(1 << 20):
            with self._changed:
                while not self._queue:
                    self._changed.wait()
                arena, memory = self._queue.pop(0)
            self.running.wait()
            report = self.outcome(sequence)
            if report.fault is None and not report.error:
                self._compute(memory)
            memory.close()
            with self._changed:
                self.reports[sequence] = report
                arena.jobs -= 1
                self._changed.notify_all()


@dataclass
class FakeMachine:
    node: FakeNode
    info: Info = field(default_factory=Info)
    closed: int = 0

    @property
    def control(self) -> FakeMachine:
        return self

    def follow(self, client_id: int) -> None:
        assert client_id == self.node.client_id

    def forget(self, client_id: int, sequence: int) -> None:
        assert client_id == self.node.client_id

    def job(self, client_id: int, sequence: int) -> Report | None:
        assert client_id == self.node.client_id
        return self.node.reports.get(sequence)

    def close(self) -> None:
        self.closed += 1


def opened(node: FakeNode, *, real: bool = False) -> Opened:
    """What `open_node` gives for this node; `real` leaves out the machine, as on the host's kernel."""
    return Opened("fake", node, None if real else FakeMachine(node), "/dev/accel/accel0")
