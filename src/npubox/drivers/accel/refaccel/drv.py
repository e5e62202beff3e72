# SPDX-License-Identifier: Apache-2.0
"""The smallest driver on the accel core: it has buffers and sync objects, and no hardware.

Like the driver of that name that was measured on Linux 7.2: what the core answers on it is known
line by line (accel-core.md, the first paragraph).
"""

from __future__ import annotations

from npubox.core.dma_buf import DmaBuf
from npubox.core.drm.device import DrmDevice, Minors, accel_minors
from npubox.core.drm.driver import DrmDriver, Feature, ioctl
from npubox.core.drm.fdinfo import memory_stats
from npubox.core.drm.file import DrmFile
from npubox.core.drm.gem import GemObject, create_handle
from npubox.core.usermem import UserMemory
from npubox.uapi import refaccel as uapi


class RefAccel(DrmDriver):
    name = uapi.DRIVER_NAME
    desc = "reference accel"
    version = (1, 2, 3)
    features = Feature.COMPUTE_ACCEL | Feature.GEM | Feature.SYNCOBJ | Feature.SYNCOBJ_TIMELINE
    shows_fdinfo = True

    def import_buffer(self, buffer: DmaBuf) -> GemObject:
        return GemObject(self.device, buffer.size, buffer)

    def show_fdinfo(self, file: DrmFile) -> list[tuple[str, str]]:
        return memory_stats(file)

    @ioctl(uapi.CREATE_BO)
    def create_bo(self, file: DrmFile, args: uapi.CreateBo, memory: UserMemory) -> None:
        item = GemObject(self.device, args.size)
        try:
            args.handle = create_handle(file, item)
        finally:
            item.put()
        args.offset = item.offset


def probe(name: str, minors: Minors = accel_minors) -> DrmDevice:
    """Register the accel node of the platform device `name`."""
    device = DrmDevice(RefAccel(), name, minors=minors)
    device.register()
    return device
