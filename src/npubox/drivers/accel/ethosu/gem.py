# SPDX-License-Identifier: Apache-2.0
"""Buffer objects of the Ethos-U driver: pages of the store that the NPU reaches at `address`."""

from __future__ import annotations

from npubox.bus.port import Prot
from npubox.core.drm.device import DrmDevice
from npubox.core.drm.gem import GemObject
from npubox.drivers.accel.ethosu.cmdstream import CommandStream
from npubox.drivers.memory import DeviceMemory


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
