# SPDX-License-Identifier: Apache-2.0
"""Device memory as a dma-buf (facts, neuron.md §3.2, §9.3): named by where the process has mapped it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from npubox.core.dma_buf import DmaBuf
from npubox.core.drm.reservation import Reservation
from npubox.core.file import Backing
from npubox.core.ranges import PAGE_SIZE
from npubox.drivers.misc.neuron.call import Call, ioctl
from npubox.drivers.misc.neuron.device import NeuronDevice
from npubox.hw.neuron.pci import Bar
from npubox.uapi import neuron as uapi
from npubox.uapi import neuron_structs as structs


@ioctl(uapi.DMABUF_FD, misc=True)
def dmabuf_fd(call: Call, args: structs.DmabufFd) -> None:
    """EINVAL for what the process has not mapped from a device, EPERM where processes are kept apart."""
    if call.driver.isolate:
        raise OSError(errno.EPERM, "memory is not shared where processes are kept apart")
    if not args.size or (args.va | args.size) % PAGE_SIZE:
        raise OSError(errno.EINVAL, f"{args.size} bytes at {args.va:#x} are no whole pages")
    backing = _mapped(call.driver.devices, call.pid, args.va, args.size)
    shared = DmaBuf(
        call.device,
        args.size,
        backing,
        Reservation(),
        os.O_RDWR,
        lambda: None,
        exporter_name=uapi.DRIVER_NAME,
    )
    number = call.caller.files.install(shared, os.O_CLOEXEC | os.O_RDWR)
    call.write(args.fd, number.to_bytes(4, "little"))


def _mapped(devices: Iterable[NeuronDevice], pid: int, address: int, size: int) -> Backing:
    """What a process sees at `address`: memory of which file. OSError EINVAL where it is no device's."""
    for device in devices:
        for fd in {device.memory.file.fd, *(area.fd for area in device.port.bars[Bar.DRAM].areas)}:
            offset = mapped_offset(pid, address, size, fd)
            if offset is not None:
                return Backing(fd, offset)
    raise OSError(errno.EINVAL, f"the process has mapped no device memory at {address:#x}")


def mapped_offset(pid: int, address: int, size: int, fd: int) -> int | None:
    """Where in file `fd` the `size` bytes are that a process sees at `address`; None if it maps no such."""
    about = os.fstat(fd)
    key = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x} {about.st_ino}"
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            span, _, offset, device, inode = line.split(None, 5)[:5]
            start, end = (int(part, 16) for part in span.split("-"))
            if f"{device} {inode}" == key and start <= address and address + size <= end:
                return int(offset, 16) + address - start
    return None
