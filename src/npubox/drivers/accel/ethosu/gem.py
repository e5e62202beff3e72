# SPDX-License-Identifier: Apache-2.0
"""Buffer objects of the Ethos-U driver: pages of the store that the NPU reaches at `address`."""

from __future__ import annotations

import errno

from npubox.bus.port import DmaSpace, Prot
from npubox.core.drm.device import DrmDevice
from npubox.core.drm.gem import GemObject
from npubox.core.ranges import PAGE_SIZE, RangeAllocator
from npubox.drivers.accel.ethosu.cmdstream import CommandStream


class DeviceMemory:
    """The device addresses of buffers. A guard page after each makes an NPU that runs past its buffer
    fault instead of reading its neighbour."""

    def __init__(self, dma: DmaSpace, start: int, end: int) -> None:
        self._dma = dma
        self._ranges = RangeAllocator(start, end)

    def map(self, fd: int, offset: int, size: int, prot: Prot) -> int:
        """Give `size` bytes of the store a device address; OSError ENOMEM when the space is full."""
        try:
            address = self._ranges.allocate(size + PAGE_SIZE)
        except OSError as error:
            raise OSError(errno.ENOMEM, f"the NPU's memory has no room for {size} bytes") from error
        try:
            self._dma.map(address, fd, offset, size, prot)
        except OSError:
            self._ranges.free(address, size + PAGE_SIZE)
            raise
        return address

    def unmap(self, address: int, size: int) -> None:
        self._dma.unmap(address, size)
        self._ranges.free(address, size + PAGE_SIZE)


class EthosuBo(GemObject):
    """`commands` is set for command streams: they cannot be mapped by programs nor written by the NPU."""

    commands: CommandStream | None = None

    def __init__(self, device: DrmDevice, memory: DeviceMemory, size: int, prot: Prot) -> None:
        self._memory = memory
        self._mapped = False
        super().__init__(device, size)
        try:
            self.address = memory.map(device.store.fd, self.offset, self.size, prot)
        except OSError:
            self.put()
            raise
        self._mapped = True

    def release(self) -> None:
        if self._mapped:
            self._memory.unmap(self.address, self.size)
        super().release()
