# SPDX-License-Identifier: Apache-2.0
"""The mainline `ethosu` accel driver: its six ioctls and its probe.

Answers are those of Linux 7.2, also where they hide errors: BO_WAIT is 0 for failed jobs. Different:
runtime power management is left out (the NPU stays on, its SRAM is cleared at probe and after a hang
only), the jobs that a closed file left waiting are killed at once, without the kernel's grace period,
and the PERFMON ioctls are absent, as 7.2 does not have them. With the policy "hardware", which is not
mainline's, it drives the U55 too and takes every stream that an NPU could start. Source: the project's facts
(ethosu-accel.md §1.2, §3).
"""

from __future__ import annotations

import ctypes
import errno

from npubox.bus.port import PlatformDevice, Prot
from npubox.core.drm.device import DrmDevice
from npubox.core.drm.driver import DrmDriver, Feature, ioctl
from npubox.core.drm.file import DrmFile
from npubox.core.drm.gem import create_handle, lookup
from npubox.core.drm.queue import Entity, JobQueue
from npubox.core.drm.reservation import Usage
from npubox.core.pending import Pending
from npubox.core.usermem import CHUNK, UserMemory
from npubox.drivers.accel.ethosu.cmdstream import Policy, frame, validate
from npubox.drivers.accel.ethosu.gem import EthosuBo
from npubox.drivers.accel.ethosu.job import JOB_TIMEOUT, Npu, check_job
from npubox.drivers.memory import DeviceMemory
from npubox.hw.ethosu.registers import Product, Reg
from npubox.uapi import ethosu_accel as uapi

ARCH_MAJOR_SHIFT = 28
ARCH_MAJOR_U65 = 1
PRODUCT_SHIFT = 28


class EthosuDriver(DrmDriver):
    """The driver on one NPU."""

    name = uapi.DRIVER_NAME
    desc = "Arm Ethos-U Accel driver"
    version = (1, 0, 0)
    features = Feature.COMPUTE_ACCEL | Feature.GEM

    def __init__(self, platform: PlatformDevice, policy: Policy) -> None:
        self._check_stream = validate if policy is Policy.MAINLINE else frame
        self._port = port = platform.port
        self._memory = DeviceMemory(port.dma, platform.dma_start, platform.dma_end)
        self._npu = Npu(platform.name, port, platform.sram)
        self._npu.reset()
        self._info = uapi.NpuInfo(
            id=port.read32(Reg.ID),
            config=port.read32(Reg.CONFIG),
            sram_size=platform.sram.size if platform.sram else 0,
        )
        self._entities: dict[DrmFile, Entity] = {}
        device = DrmDevice(self, platform.name)
        self._queue = JobQueue(
            platform.name,
            self._npu,
            device.lock,
            port.clock,
            credit_limit=1,
            timeout=JOB_TIMEOUT,
            observer=device.observe,
            lost=device.lose,
        )
        self._npu.connect(device.lock, self._queue.fault)

    def open(self, file: DrmFile) -> None:
        self._entities[file] = self._queue.entity(file.client_id)

    def postclose(self, file: DrmFile) -> None:
        self._queue.kill(self._entities.pop(file))

    def unplug(self) -> None:
        self._queue.cancel_all(errno.ENODEV)

    def join(self) -> None:
        self._queue.join()

    def lend(self, deadline: int | None) -> bool:
        return self._port.lend(deadline)

    def release(self) -> None:
        self._npu.disconnect()

    @ioctl(uapi.DEV_QUERY)
    def dev_query(self, file: DrmFile, args: uapi.DevQuery, memory: UserMemory) -> None:
        if args.type != uapi.Query.NPU_INFO:
            raise OSError(errno.EINVAL, f"DEV_QUERY has no type {args.type}")
        size = ctypes.sizeof(uapi.NpuInfo)
        if not args.pointer:
            args.size = size
            return
        if args.size < size:
            raise OSError(errno.EINVAL, f"DEV_QUERY NPU_INFO needs {size} bytes, not {args.size}")
        memory.write(args.pointer, bytes(self._info))
        for start in range(size, args.size, CHUNK):
            memory.write(args.pointer + start, bytes(min(CHUNK, args.size - start)))

    @ioctl(uapi.BO_CREATE)
    def bo_create(self, file: DrmFile, args: uapi.BoCreate, memory: UserMemory) -> None:
        if not args.size or args.flags & ~int(uapi.BoFlag.NO_MMAP):
            raise OSError(errno.EINVAL, f"BO_CREATE with size {args.size} and flags {args.flags:#x}")
        bo = EthosuBo(self.device, self._memory, args.size, Prot.READ | Prot.WRITE)
        bo.mappable = not args.flags & uapi.BoFlag.NO_MMAP
        try:
            args.handle = create_handle(file, bo)
            args.size = bo.size
        finally:
            bo.put()

    @ioctl(uapi.BO_WAIT)
    def bo_wait(self, file: DrmFile, args: uapi.BoWait, memory: UserMemory) -> Pending:
        if args.pad:
            raise OSError(errno.EINVAL, "BO_WAIT with pad set")
        bo = lookup(file, args.handle, errno.EINVAL)
        return Pending(bo.reservation.fences(Usage.READ), deadline=args.timeout_ns)

    @ioctl(uapi.BO_MMAP_OFFSET)
    def bo_mmap_offset(self, file: DrmFile, args: uapi.BoMmapOffset, memory: UserMemory) -> None:
        if args.pad:
            raise OSError(errno.EINVAL, "BO_MMAP_OFFSET with pad set")
        args.offset = lookup(file, args.handle).offset

    @ioctl(uapi.CMDSTREAM_BO_CREATE)
    def cmdstream_bo_create(self, file: DrmFile, args: uapi.CmdstreamBoCreate, memory: UserMemory) -> None:
        if not args.size or not args.data or args.pad or args.flags:
            raise OSError(errno.EINVAL, "CMDSTREAM_BO_CREATE needs size and data, and no flags or pad")
        data = memory.read(args.data, args.size)
        bo = EthosuBo(self.device, self._memory, args.size, Prot.READ)
        try:
            bo.commands = self._check_stream(data)
            bo.mappable = False
            self.device.store.write(bo.offset, data[: len(data) & ~3])
            args.handle = create_handle(file, bo)
        finally:
            bo.put()

    @ioctl(uapi.SUBMIT)
    def submit(self, file: DrmFile, args: uapi.Submit, memory: UserMemory) -> None:
        if args.pad:
            raise OSError(errno.EINVAL, "SUBMIT with pad set")
        size = ctypes.sizeof(uapi.Job)
        data = memory.read(args.jobs, size * args.job_count)
        for index in range(args.job_count):
            self._submit_one(file, uapi.Job.from_buffer_copy(data, index * size))

    def _submit_one(self, file: DrmFile, args: uapi.Job) -> None:
        entity = self._entities[file]
        job = check_job(file, args, self._info.sram_size)
        try:
            job.depend_on_buffers()
            self._queue.arm(entity, job)
        except OSError:
            job.release()
            raise
        job.publish()
        self._queue.push(job)


def probe(platform: PlatformDevice, policy: Policy = Policy.MAINLINE) -> DrmDevice:
    """Bind the driver to an NPU and register its accel node.

    The clock is the port's. Raises OSError ENODEV for an NPU that this driver does not drive and
    ETIMEDOUT for one that does not come out of reset.
    """
    port = platform.port
    arch_major = port.read32(Reg.ID) >> ARCH_MAJOR_SHIFT
    product = port.read32(Reg.CONFIG) >> PRODUCT_SHIFT
    if arch_major != ARCH_MAJOR_U65:
        raise OSError(
            errno.ENODEV, f"{platform.name}: Ethos-U architecture {arch_major} is not driven yet (U85)"
        )
    if product != Product.U65 and policy is Policy.MAINLINE:
        raise OSError(
            errno.ENODEV, f"{platform.name}: mainline's driver has no Ethos-U55 (product {product})"
        )
    device = EthosuDriver(platform, policy).device
    device.register()
    return device
