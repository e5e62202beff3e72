# SPDX-License-Identifier: Apache-2.0
"""Mainline Linux's `ethosu` accel driver as typed calls: a method an ioctl, OSError as the kernel answers."""

from __future__ import annotations

import ctypes
import errno
import mmap
from collections.abc import Sequence
from dataclasses import dataclass

from npubox.client.node import NodeFile, call_ioctl
from npubox.uapi import drm
from npubox.uapi import ethosu_accel as uapi

FOREVER = (1 << 63) - 1  # BO_WAIT's absolute deadline that never comes


@dataclass(frozen=True)
class NpuInfo:
    """DEV_QUERY's answer: the registers ID and CONFIG, and the bytes of on-chip SRAM a job may use."""

    id: int
    config: int
    sram_size: int

    @property
    def accelerator(self) -> str:
        """The name in Arm's and Vela's terms, e.g. `ethos-u65-256`, out of CONFIG (facts, ethosu-accel.md
        §6.1)."""
        product = {0: "u55", 1: "u65", 2: "u85"}.get(self.config >> 28, f"product{self.config >> 28}")
        return f"ethos-{product}-{1 << (self.config & 0xF)}"


class EthosuAccel:
    """The six ioctls of an open node, GEM_CLOSE and mmap. Thread-safe: it keeps no state."""

    def __init__(self, node: NodeFile) -> None:
        self._node = node

    def npu_info(self) -> NpuInfo:
        info = uapi.NpuInfo()
        pointer, size = ctypes.addressof(info), ctypes.sizeof(info)
        query = uapi.DevQuery(type=uapi.Query.NPU_INFO, size=size, pointer=pointer)
        call_ioctl(self._node, uapi.DEV_QUERY, query)
        return NpuInfo(info.id, info.config, info.sram_size)

    def bo_create(self, size: int) -> int:
        """The handle of a new zeroed buffer object of at least `size` bytes."""
        create = uapi.BoCreate(size=size)
        call_ioctl(self._node, uapi.BO_CREATE, create)
        return int(create.handle)

    def bo_map(self, handle: int, size: int) -> mmap.mmap:
        """Map the first `size` bytes of a buffer object, shared and writable."""
        where = uapi.BoMmapOffset(handle=handle)
        call_ioctl(self._node, uapi.BO_MMAP_OFFSET, where)
        return self._node.mmap(size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, where.offset)

    def bo_wait(self, handle: int, deadline_ns: int) -> bool:
        """Wait for the jobs that write the object until `deadline_ns` (CLOCK_MONOTONIC, absolute).

        False when it came first. True says that they ended, not that they succeeded (facts,
        ethosu-accel.md §5.4).
        """
        wait = uapi.BoWait(handle=handle, timeout_ns=deadline_ns)
        try:
            call_ioctl(self._node, uapi.BO_WAIT, wait)
        except OSError as error:
            if error.errno != errno.ETIME:
                raise
            return False
        return True

    def cmdstream_bo_create(self, words: bytes) -> int:
        """The handle of a command stream; EINVAL where the kernel's validation refuses it."""
        data = (ctypes.c_uint8 * len(words)).from_buffer_copy(words)
        create = uapi.CmdstreamBoCreate(size=len(words), data=ctypes.addressof(data))
        call_ioctl(self._node, uapi.CMDSTREAM_BO_CREATE, create)
        return int(create.handle)

    def submit(self, command: int, regions: Sequence[int], sram_size: int) -> None:
        """Queue one job: command stream handle, a handle or 0 for each of the eight regions, SRAM bytes."""
        job = uapi.Job(cmd_bo=command, sram_size=sram_size)
        job.region_bo_handles[:] = regions
        submit = uapi.Submit(jobs=ctypes.addressof(job), job_count=1)
        call_ioctl(self._node, uapi.SUBMIT, submit)

    def gem_close(self, handle: int) -> None:
        call_ioctl(self._node, drm.GEM_CLOSE, drm.GemClose(handle=handle))
