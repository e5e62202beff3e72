# SPDX-License-Identifier: Apache-2.0
"""Ioctls at random in this process, made from the declarations: python -m tests.core.fuzz --calls N --seed S.

On nodes of two devices and on whatever descriptors they give: dma-bufs, sync files, sync objects, timelines.
No call may fail with anything but an OSError, and when all is closed nothing may be left: no descriptor, no
buffer object, no memory.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import gc
import mmap
import os
import random
import struct
import time
from typing import Any

from npubox.core.caller import Caller
from npubox.core.descriptors import OwnDescriptors
from npubox.core.dma_buf import DmaBuf
from npubox.core.drm.device import DrmDevice, Minors
from npubox.core.drm.open_file import DrmOpenFile
from npubox.core.drm.syncobj_file import SyncobjFile
from npubox.core.file import OpenFile
from npubox.core.node import Node, adopt
from npubox.core.pending import Pending
from npubox.core.sw_sync import SwSyncFile
from npubox.core.sync_file import SyncFile
from npubox.core.usermem import OwnMemory
from npubox.drivers.accel.refaccel.drv import probe
from npubox.uapi import dma_buf, drm, drm_syncobj, refaccel, sw_sync, sync_file
from npubox.uapi.drm_numbers import MODESET_MASTER_NUMBERS, MODESET_NUMBERS, NUMBERS, UNHANDLED_NUMBERS
from npubox.uapi.ioctl import Ioctl
from tests.core.descriptors import open_descriptors

ROOM = 1 << 16
POOL = 24
FILE_LIFE = 2000
LIMITS = (0, 1, 2, 3, 5, 16, 4095, 4096, 4097, 0x7FFF_FFFF, 0xFFFF_FFFF, (1 << 63) - 1, (1 << 64) - 1)
BAD_POINTERS = (0, 8, 1 << 47, (1 << 64) - 8)
POINTERS = ("handles", "points", "name", "date", "desc", "unique", "sync_fence_info")
DESCRIPTORS = ("fd", "fd2", "fence_fd", "fence")
NODE_DECLARATIONS = (*drm.IOCTLS, *drm_syncobj.IOCTLS, *drm_syncobj.IOCTLS, *refaccel.IOCTLS)
DECLARATIONS: dict[type[OpenFile], tuple[Ioctl[Any], ...]] = {
    DrmOpenFile: NODE_DECLARATIONS,
    DmaBuf: dma_buf.IOCTLS,
    SyncFile: sync_file.IOCTLS,
    SwSyncFile: sw_sync.IOCTLS,
    SyncobjFile: (*sync_file.IOCTLS, *dma_buf.IOCTLS),
}
ARRAYS = [
    *(struct.pack("8I", *(value * step % 6 for value in range(8))) for step in range(1, 6)),
    *(struct.pack("4Q", *(value * step % 6 for value in range(4))) for step in range(1, 6)),
]
BARE_NUMBERS = (
    *(number for number, _ in NUMBERS.values()),
    *MODESET_NUMBERS.values(),
    *MODESET_MASTER_NUMBERS.values(),
    *UNHANDLED_NUMBERS.values(),
)


class RecordingDescriptors(OwnDescriptors):
    """Remembers what it gave."""

    def __init__(self) -> None:
        self.given: list[int] = []

    def install(self, file: OpenFile, flags: int) -> int:
        number = super().install(file, flags)
        self.given.append(number)
        return number


class Fuzzer:
    """`answers` counts what the calls ended with, by errno. Several may work on the same devices."""

    def __init__(self, seed: int, devices: list[DrmDevice]) -> None:
        self._random = random.Random(seed)
        self._memory = mmap.mmap(-1, ROOM)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._files = RecordingDescriptors()
        self._caller = Caller(os.getpid(), lambda: self._random.random() < 0.5, OwnMemory(), self._files)
        self._devices = devices
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._opened: list[Node] = []
        self._pool: list[int] = []
        self._adopted: list[Node] = []
        self.answers: dict[str, int] = {}

    def run(self, calls: int) -> None:
        for index in range(calls):
            if index % FILE_LIFE == 0:
                self._reopen()
            answer = self._call()
            self.answers[answer] = self.answers.get(answer, 0) + 1
            self._keep_pool()

    def close(self) -> None:
        self._close_files()
        os.close(self._eventfd)

    def _reopen(self) -> None:
        self._close_files()
        self._opened = [Node.open(device, sys_admin=True) for device in self._devices * 2]
        self._opened += [Node(SwSyncFile("fuzz")), Node(SwSyncFile("more"))]

    def _close_files(self) -> None:
        for number in self._pool:
            adopt(number).close()
        for node in [*self._adopted, *self._opened]:
            node.close()
        self._pool, self._adopted, self._opened = [], [], []

    def _keep_pool(self) -> None:
        self._pool += self._files.given
        self._files.given.clear()
        while len(self._pool) > POOL:
            node = adopt(self._pool.pop(self._random.randrange(len(self._pool))))
            if self._random.random() < 0.5:
                self._adopted.append(node)
            else:
                node.close()
        while len(self._adopted) > POOL:
            self._adopted.pop(self._random.randrange(len(self._adopted))).close()

    def _call(self) -> str:
        dice = self._random
        node = dice.choice(self._adopted if self._adopted and dice.random() < 0.3 else self._opened)
        number, data = self._argument(dice.choice(DECLARATIONS[type(node.file)]))
        self._memory[: len(data)] = data
        address = self._address if dice.random() < 0.97 else dice.choice(BAD_POINTERS)
        try:
            result = node.file.ioctl(number, address, self._caller)
            if isinstance(result, Pending):
                self._end(result)
                result.finish()
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return "0"

    def _end(self, pending: Pending) -> None:
        if not pending.done and self._random.random() < 0.5:
            pending.cancel()
        else:
            pending.expire()

    def _argument(self, declaration: Ioctl[Any]) -> tuple[int, bytes]:
        dice, number = self._random, declaration.number
        made = declaration.struct()
        for field in made._fields_:
            name, type_ = field[:2]
            if issubclass(type_, ctypes._SimpleCData):
                setattr(made, name, self._value(name))
        if dice.random() < 0.05:
            number = number & ~(0x3FFF << 16) | dice.choice((0, 4, 8, 12, 24, 64, 200)) << 16
        if dice.random() < 0.05:
            number = number & 0x3FFF_FFFF | dice.randrange(4) << 30
        if dice.random() < 0.03:
            number = dice.choice(BARE_NUMBERS)
        data = bytes(made)
        return number, data + dice.randbytes(256 - len(data)) if dice.random() < 0.1 else data

    def _value(self, name: str) -> int:
        dice = self._random
        if name in POINTERS:
            if dice.random() < 0.1:
                return dice.choice(BAD_POINTERS)
            place = dice.randrange(512, ROOM - 8192, 8)
            self._memory[place : place + 32] = dice.choice(ARRAYS)
            return self._address + place
        if name in DESCRIPTORS:
            return dice.choice([*self._pool, *self._pool, self._eventfd, -1, 0])
        if name == "size":
            return dice.choice((0, 1, 4096, 5000, 65536, (1 << 64) - 1))
        if name.startswith("count") or name == "num_fences":
            return dice.choice((0, 1, 1, 1, 1, 2, 3, 8, 0xFFFF_FFFF))
        if name == "timeout_nsec":
            return dice.choice((0, (1 << 63) - 1, (1 << 63) - 1))
        if name == "pad":
            return int(dice.random() < 0.02)
        if name == "flags":
            return dice.choice((0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 8, os.O_CLOEXEC, 0xFFFF_FFFF))
        return dice.randrange(6) if dice.random() < 0.8 else dice.choice(LIMITS)


def two_devices() -> list[DrmDevice]:
    return [probe(f"refaccel.{index}", Minors()) for index in (0, 1)]


def check_released(devices: list[DrmDevice]) -> None:
    """Nothing is left on the devices."""
    for device in devices:
        assert device.files == []
        assert device.object_count == 0, f"{device.object_count} buffer objects are left"
        assert device.store.resident_bytes == 0
        device.unplug()


def run(calls: int, seed: int) -> dict[str, int]:
    """The answers to so many calls on two fresh devices."""
    devices = two_devices()
    fuzzer = Fuzzer(seed, devices)
    fuzzer.run(calls)
    fuzzer.close()
    check_released(devices)
    return fuzzer.answers


def resident() -> int:
    """Bytes of this process in memory, after giving back what nobody uses."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * mmap.PAGESIZE


def fuzz(calls: int, seed: int) -> tuple[dict[str, int], int, int]:
    """Calls by answer, and by how much descriptors and resident bytes grew between the first tenth and the
    end. Raises what a call must not raise."""
    descriptors = open_descriptors()
    run(calls // 10, seed)
    before = resident()
    answers = run(calls - calls // 10, seed + 1)
    return answers, open_descriptors() - descriptors, resident() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    start = time.monotonic()
    answers, descriptors, memory = fuzz(options.calls, options.seed)
    seconds = time.monotonic() - start
    print(f"{options.calls} calls in {seconds:.0f} s, {options.calls / seconds:.0f} a second")
    print("answers:", ", ".join(f"{name} {count}" for name, count in sorted(answers.items())))
    print(f"left when all was closed: {descriptors} descriptors, {memory / 1024:.0f} KiB of memory")
    if descriptors or memory > 16 << 20:
        raise SystemExit("something leaks")


if __name__ == "__main__":
    main()
