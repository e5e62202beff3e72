# SPDX-License-Identifier: Apache-2.0
"""A virtual device, its driver and a program: the template that CONTRIBUTING.md walks through. It runs.

The device adds 1 to each byte of a buffer. The program never waits for the device itself: the driver puts the
job's fence into a sync object, as GPU drivers do.
"""

from __future__ import annotations

import ctypes
import errno
import threading
from ctypes import c_uint32, c_uint64

from npubox.bus.port import Port, Prot
from npubox.bus.virtual import AddressSpace, DmaFault, InterruptLine, VirtualClock, VirtualPort
from npubox.core.drm.device import DrmDevice
from npubox.core.drm.driver import DrmDriver, Feature, ioctl
from npubox.core.drm.fence import Fence, new_context
from npubox.core.drm.file import DrmFile
from npubox.core.drm.gem import GemObject, create_handle, lookup
from npubox.core.drm.queue import Entity, Job, JobQueue, Outcome
from npubox.core.drm.reservation import Usage
from npubox.core.node import Node
from npubox.core.usermem import UserMemory
from npubox.uapi.drm_syncobj import SYNCOBJ_CREATE, SYNCOBJ_WAIT, SyncobjCreate, SyncobjWait
from npubox.uapi.ioctl import iowr

# hw/adder/registers.py: what device and driver agree on

ADDRESS, SIZE, GO, STATUS = 0x0, 0x4, 0x8, 0xC
DONE, FAULT = 1, 2


# devices/adder/adder.py: the virtual device


class Adder:
    """GO starts it; STATUS is 0 until the interrupt, then DONE, or FAULT where no memory is mapped."""

    def __init__(self, dma: AddressSpace, clock: VirtualClock, line: InterruptLine) -> None:
        self._dma, self._clock, self._line = dma, clock, line
        self._registers = {ADDRESS: 0, SIZE: 0, STATUS: 0}

    def read32(self, offset: int) -> int:
        return self._registers.get(offset, 0)

    def write32(self, offset: int, value: int) -> None:
        if offset == GO:
            self._registers[STATUS] = 0
            self._clock.begin_work()
            threading.Thread(target=self._run, name="adder", daemon=True).start()
        elif offset in (ADDRESS, SIZE):
            self._registers[offset] = value

    def _run(self) -> None:
        address, size = self._registers[ADDRESS], self._registers[SIZE]
        try:
            mapping = self._dma.find(address, size, write=True)
        except DmaFault:
            self._registers[STATUS] = FAULT
        else:
            start = address - mapping.address
            data = mapping.memory[start : start + size]
            mapping.memory[start : start + size] = bytes((byte + 1) & 0xFF for byte in data)
            self._registers[STATUS] = DONE
        self._clock.advance_to(self._clock.now() + size)  # one byte a nanosecond
        self._clock.end_work()
        self._line.fire()


# uapi/adder.py: what programs and driver agree on


class CreateBo(ctypes.Structure):
    _fields_ = (("size", c_uint64), ("handle", c_uint32), ("pad", c_uint32), ("offset", c_uint64))


class Run(ctypes.Structure):
    """`syncobj` gets the fence of the job on the first `size` bytes of `handle`."""

    _fields_ = (("handle", c_uint32), ("size", c_uint32), ("syncobj", c_uint32), ("pad", c_uint32))


CREATE_BO = iowr("ADDER_CREATE_BO", "d", 0x40, CreateBo)
RUN = iowr("ADDER_RUN", "d", 0x41, Run)


# drivers/accel/adder/drv.py: the driver

WINDOW = 0x1000_0000  # where the device finds the buffer of the job that runs
TIMEOUT = 500_000_000


class AddJob(Job):
    def __init__(self, item: GemObject, size: int) -> None:
        super().__init__()
        self.item, self.size = item, size
        self.mapped = False


class AdderDriver(DrmDriver):
    name, desc, version = "adder", "Adds 1", (1, 0, 0)
    features = Feature.COMPUTE_ACCEL | Feature.GEM | Feature.SYNCOBJ

    def __init__(self, port: Port) -> None:
        self._port = port
        self._fence: Fence | None = None
        self._entities: dict[DrmFile, Entity] = {}
        lock = DrmDevice(self, "adder.0").lock
        self._queue = JobQueue("adder", self, lock, port.clock, credit_limit=1, timeout=TIMEOUT)
        port.on_interrupt(0, lambda: lock.post(self._ended))

    def open(self, file: DrmFile) -> None:
        self._entities[file] = self._queue.entity(file.client_id)

    def postclose(self, file: DrmFile) -> None:
        self._queue.kill(self._entities.pop(file))

    def unplug(self) -> None:
        self._queue.cancel_all(errno.ENODEV)

    def join(self) -> None:
        self._queue.join()

    def release(self) -> None:
        self._port.on_interrupt(0, None)

    @ioctl(CREATE_BO)
    def create_bo(self, file: DrmFile, args: CreateBo, memory: UserMemory) -> None:
        item = GemObject(self.device, args.size)
        try:
            args.handle, args.offset = create_handle(file, item), item.offset
        finally:
            item.put()

    @ioctl(RUN)
    def run(self, file: DrmFile, args: Run, memory: UserMemory) -> None:
        item, syncobj = lookup(file, args.handle), file.syncobj(args.syncobj)
        if args.pad or not 0 < args.size <= item.size:
            raise OSError(errno.EINVAL, f"RUN of {args.size} bytes of a buffer of {item.size}")
        job = AddJob(item, args.size)
        job.add_dependencies(item.reservation.fences(Usage.before(write=True)))
        self._queue.arm(self._entities[file], job)
        item.get()
        item.reservation.add(job.finished, Usage.WRITE)
        syncobj.replace(job.finished)
        self._queue.push(job)

    # The backend of its job queue

    def run_job(self, job: Job) -> Fence:
        assert isinstance(job, AddJob)
        fd, offset = job.item.backing[:2]
        self._port.dma.map(WINDOW, fd, offset, job.item.size, Prot.READ | Prot.WRITE)
        job.mapped = True
        self._fence = Fence(new_context(), 1, self.name, "adder.0")
        for register, value in ((ADDRESS, WINDOW), (SIZE, job.size), (GO, 1)):
            self._port.write32(register, value)
        return self._fence

    def timedout_job(self, job: Job) -> Outcome:
        self._fence = None
        return Outcome.RESET

    def free_job(self, job: Job) -> None:
        assert isinstance(job, AddJob)
        if job.mapped:
            self._port.dma.unmap(WINDOW, job.item.size)
        job.item.put()

    def _ended(self) -> None:
        if self._fence is not None:
            self._fence.signal(0 if self._port.read32(STATUS) == DONE else errno.EIO)


# The program, through the same calls that a program in C would make


def main() -> None:
    dma, clock, line = AddressSpace(), VirtualClock(), InterruptLine()
    device = AdderDriver(VirtualPort(Adder(dma, clock, line), dma, clock, line)).device
    device.register()
    with Node.open(device) as node:
        bo, done = CreateBo(size=4096), SyncobjCreate()
        node.ioctl(CREATE_BO, ctypes.addressof(bo))
        node.ioctl(SYNCOBJ_CREATE, ctypes.addressof(done))
        with node.mmap(4096, offset=bo.offset) as buffer:
            buffer[:6] = b"HAL9\xff\x00"
            run = Run(handle=bo.handle, size=6, syncobj=done.handle)
            node.ioctl(RUN, ctypes.addressof(run))
            handles = c_uint32(done.handle)
            wait = SyncobjWait(handles=ctypes.addressof(handles), count_handles=1, timeout_nsec=(1 << 63) - 1)
            node.ioctl(SYNCOBJ_WAIT, ctypes.addressof(wait))
            print(f"/dev/accel/{device.name}: {buffer[:6]!r} after {clock.now()} ns of device time")
    device.unplug()
    clock.close()


if __name__ == "__main__":
    main()
