# SPDX-License-Identifier: Apache-2.0
"""Jobs of the Ethos-U driver: what SUBMIT checks, and how a job gets onto the NPU and off again.

Source: the project's facts (ethosu-accel.md §5, §6.2).
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable

from npubox.bus.port import MemoryPool, Port
from npubox.core.drm.fence import Fence, new_context
from npubox.core.drm.file import DrmFile
from npubox.core.drm.gem import lookup
from npubox.core.drm.queue import Job, Outcome
from npubox.core.drm.reservation import Usage
from npubox.core.lock import DeviceLock
from npubox.drivers.accel.ethosu.gem import EthosuBo
from npubox.hw.ethosu.commands import SRAM_REGION
from npubox.hw.ethosu.registers import Cmd, Reg, Status
from npubox.uapi import ethosu_accel as uapi

_log = logging.getLogger(__name__)

MS = 1_000_000
JOB_TIMEOUT = 500 * MS
PROGRESS_TIMEOUT = 100 * MS
PROGRESS_STEP = 5 * MS
RESET_TIMEOUT = 1000 * MS
RESET_STEP = 1 * MS
RESET_NON_SECURE = 2
PROT_NON_SECURE = 2
REGIONCFG_SRAM_IS_2 = 0xAA8A
AXI_LIMIT_SRAM = 0x1F3F00B0
AXI_LIMIT_DRAM = 0x1F3F0002
FAILED = int(Status.BUS_ERROR | Status.PARSE_ERROR)
ADDRESS_LOW = 0xFFFF_FFFF
ZEROS = bytes(1 << 20)


class EthosuJob(Job):
    """A command stream with the buffers of its regions; holds a reference to each."""

    def __init__(self, stream: EthosuBo, regions: dict[int, EthosuBo], sram_size: int) -> None:
        super().__init__()
        self.stream = stream
        self.regions = regions
        self.sram_size = sram_size
        for bo in self.buffers:
            bo.get()

    @property
    def buffers(self) -> list[EthosuBo]:
        return [self.stream, *self.regions.values()]

    def release(self) -> None:
        for bo in self.buffers:
            bo.put()

    @property
    def written(self) -> list[EthosuBo]:
        """The region buffers that the stream writes."""
        commands = self.stream.commands
        assert commands is not None
        written = (bo for region, bo in self.regions.items() if commands.written[region])
        return list(dict.fromkeys(written))

    def depend_on_buffers(self) -> None:
        """Implicit synchronisation: a region's writer waits for everybody, its reader for writers."""
        written = self.written
        for bo in self.regions.values():
            self.add_dependencies(bo.reservation.fences(Usage.before(write=bo in written)))

    def publish(self) -> None:
        """Attach the armed job's fence to what it writes, and to nothing else."""
        for bo in self.written:
            bo.reservation.add(self.finished, Usage.WRITE)


def check_job(file: DrmFile, job: uapi.Job, device_sram: int) -> EthosuJob:
    """SUBMIT's checks of one job in the kernel's order; OSError with its errno.

    Of a stream whose operations were not looked at any region may have a buffer of any size or none, and
    one buffer may serve several.
    """
    handles = list(job.region_bo_handles)
    if handles[SRAM_REGION] and job.sram_size:
        raise OSError(errno.EINVAL, "region 2 is the SRAM: it cannot have a buffer and sram_size both")
    if job.sram_size > device_sram:
        raise OSError(errno.EINVAL, f"sram_size {job.sram_size}: the device has {device_sram} bytes of SRAM")
    stream = _buffer(file, job.cmd_bo)
    if stream.commands is None:
        raise OSError(errno.EINVAL, f"handle {job.cmd_bo} is not a command stream")
    if not stream.commands.checked:
        served = {
            region: _region_buffer(file, region, handle) for region, handle in enumerate(handles) if handle
        }
        return EthosuJob(stream, served, job.sram_size)
    regions: dict[int, EthosuBo] = {}
    for region, handle in enumerate(handles):
        bo = _check_region(file, region, handle, stream.commands.region_size[region], job.sram_size)
        if bo is not None:
            if bo in regions.values():
                raise OSError(errno.EALREADY, f"handle {handle} serves two regions of one job")
            regions[region] = bo
    return EthosuJob(stream, regions, job.sram_size)


def _check_region(file: DrmFile, region: int, handle: int, used: int, sram_size: int) -> EthosuBo | None:
    if not handle:
        if not used:
            return None
        if region != SRAM_REGION:
            raise OSError(errno.ENOENT, f"region {region} is used by the stream and has no buffer")
        if used > sram_size:
            raise OSError(errno.EINVAL, f"the stream uses {used} bytes of SRAM, sram_size is {sram_size}")
        return None
    if not used:
        raise OSError(errno.EINVAL, f"region {region} has a buffer but the stream does not use it")
    bo = _region_buffer(file, region, handle)
    if used > bo.size:
        raise OSError(
            errno.EOVERFLOW, f"the stream uses {used} bytes of region {region}, its buffer has {bo.size}"
        )
    return bo


def _region_buffer(file: DrmFile, region: int, handle: int) -> EthosuBo:
    bo = _buffer(file, handle)
    if bo.commands is not None:
        raise OSError(errno.EINVAL, f"region {region}: handle {handle} is a command stream")
    return bo


def _buffer(file: DrmFile, handle: int) -> EthosuBo:
    bo = lookup(file, handle)
    assert isinstance(bo, EthosuBo)
    return bo


class Npu:
    """The hardware behind the job queue: its backend. One job at a time."""

    def __init__(self, name: str, port: Port, sram: MemoryPool | None) -> None:
        self.name = name
        self.sram = sram
        self._port = port
        self._current: Fence | None = None
        self._context = new_context()
        self._seqno = 0

    def reset(self) -> None:
        """Bring the NPU into its initial state; OSError ETIMEDOUT if it does not come back. Sleeps."""
        port, clock = self._port, self._port.clock
        port.write32(Reg.RESET, RESET_NON_SECURE)
        deadline = clock.now() + RESET_TIMEOUT
        while port.read32(Reg.STATUS) & Status.RESET_IN_PROGRESS:
            if clock.now() >= deadline:
                raise OSError(errno.ETIMEDOUT, f"{self.name}: the NPU does not come out of reset")
            clock.sleep(RESET_STEP)
        if not port.read32(Reg.PROT) & PROT_NON_SECURE:
            _log.warning("%s: the NPU could not become non-secure", self.name)
        port.write32(Reg.REGIONCFG, REGIONCFG_SRAM_IS_2)
        port.write32(Reg.AXI_LIMIT0, AXI_LIMIT_SRAM)
        port.write32(Reg.AXI_LIMIT2, AXI_LIMIT_DRAM)
        self._clear_sram()

    def connect(self, lock: DeviceLock, fault: Callable[[], None]) -> None:
        """Take the interrupt; `fault` is called under `lock` when the NPU reports an error."""

        def ended(fence: Fence | None, status: int) -> None:
            if fence is None or fence is not self._current:
                return
            if status & FAILED:
                fault()
            else:
                # Like the kernel, without a look at END_REACHED: OP_IRQ in a stream ends the job too.
                fence.signal()

        def interrupt() -> None:
            if not self._port.read32(Reg.STATUS) & Status.IRQ_RAISED:
                return
            fence = self._current
            self._port.write32(Reg.CMD, Cmd.CLEAR_IRQ)
            status = self._port.read32(Reg.STATUS)
            lock.post(lambda: ended(fence, status))

        self._port.on_interrupt(0, interrupt)

    def disconnect(self) -> None:
        self._port.on_interrupt(0, None)

    def run_job(self, job: Job) -> Fence:
        assert isinstance(job, EthosuJob)
        assert job.stream.commands is not None
        self._seqno += 1
        fence = Fence(self._context, self._seqno, uapi.DRIVER_NAME, self.name)
        self._current = fence
        if not job.stream.commands.checked:
            self._forget_regions()
        for region, bo in job.regions.items():
            self._write_address(Reg.BASEP0 + 8 * region, bo.address)
        if job.sram_size and self.sram is not None:
            self._write_address(Reg.BASEP0 + 8 * SRAM_REGION, self.sram.address)
        self._write_address(Reg.QBASE, job.stream.address)
        self._port.write32(Reg.QSIZE, job.stream.commands.size)
        self._port.write32(Reg.CMD, Cmd.RUN)
        return fence

    def timedout_job(self, job: Job) -> Outcome:
        """A job that still moves is left alone; otherwise the NPU is reset and the job lost."""
        port = self._port
        running = bool(port.read32(Reg.STATUS) & Status.RUNNING)
        if running and self._makes_progress(job):
            return Outcome.NO_HANG
        if job.hardware is not None and job.hardware.signalled:
            return Outcome.NO_HANG
        _log.warning(
            "%s: job %d of client %d hangs, NPU %s at stream offset %#x; reset",
            self.name,
            job.sequence,
            job.entity.client_id,
            "running" if running else "stopped",
            port.read32(Reg.QREAD),
        )
        self._current = None
        self.reset()
        return Outcome.RESET

    def free_job(self, job: Job) -> None:
        assert isinstance(job, EthosuJob)
        job.release()

    def _makes_progress(self, job: Job) -> bool:
        port, clock = self._port, self._port.clock
        start = port.read32(Reg.QREAD)
        deadline = clock.now() + PROGRESS_TIMEOUT
        while clock.now() < deadline:
            clock.sleep(PROGRESS_STEP)
            if port.read32(Reg.QREAD) != start or (job.hardware is not None and job.hardware.signalled):
                return True
        return False

    def _forget_regions(self) -> None:
        """No region may be where an earlier job, of another program perhaps, had it."""
        for region in range(uapi.REGIONS):
            self._write_address(Reg.BASEP0 + 8 * region, 0)

    def _write_address(self, register: int, address: int) -> None:
        self._port.write32(register, address & ADDRESS_LOW)
        self._port.write32(register + 4, address >> 32)

    def _clear_sram(self) -> None:
        if self.sram is None:
            return
        for start in range(0, self.sram.size, len(ZEROS)):
            os.pwrite(self.sram.fd, ZEROS[: self.sram.size - start], self.sram.offset + start)
