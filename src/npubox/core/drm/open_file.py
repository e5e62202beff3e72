# SPDX-License-Identifier: Apache-2.0
"""An open DRM node as an open file description (accel-core.md §1.5)."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from npubox.core.caller import Caller
from npubox.core.drm import fdinfo
from npubox.core.drm.device import DrmDevice
from npubox.core.drm.fence import Fence, new_context
from npubox.core.drm.gem import GemObject
from npubox.core.drm.ioctl import dispatch
from npubox.core.drm.mmap import find_mappable
from npubox.core.file import Backing, NodeStandIn, OpenFile
from npubox.core.pending import Pending


class DrmOpenFile(OpenFile):
    """Opens the device: OSError EBUSY with O_EXCL, ENODEV where it is gone. `drm` is the kernel's
    drm_file."""

    def __init__(self, device: DrmDevice, flags: int, caller: Caller) -> None:
        self.device = device
        self.drm = device.open(flags, caller)
        self.client_id = self.drm.client_id
        self.stand_in = NodeStandIn(device.store.fd)
        self.link = f"/dev/accel/{device.name}"
        self._flags = flags
        self._mapped: dict[int, GemObject] = {}

    def ioctl(self, request: int, address: int, caller: Caller) -> int | Pending:
        return dispatch(self.drm, request, address, caller)

    def mmap(self, length: int, prot: int, flags: int, offset: int, caller: Caller) -> Backing:
        """OSError EINVAL, EACCES, ENODEV."""
        with self.device.lock:
            item = find_mappable(self.drm, self._flags, length, prot, flags, offset)
            if offset not in self._mapped:
                item.get()
                self._mapped[offset] = item
        return item.backing

    def forgotten(self) -> Sequence[tuple[int, int]]:
        return [(item.offset, item.size) for item in list(self._mapped.values()) if not item.handle_count]

    def unmapped(self, offset: int) -> None:
        with self.device.lock:
            item = self._mapped.pop(offset, None)
            if item is not None:
                item.put()

    def poll(self) -> int:
        """None: no modelled accel driver queues DRM events."""
        return 0

    def read(self, size: int, nonblocking: bool) -> bytes | Pending:
        """EAGAIN where it must not sleep, as there are no events."""
        if nonblocking:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return Pending([Fence(new_context(), 1)])

    def lseek(self, offset: int, whence: int) -> int:
        return 0

    def fdinfo(self) -> str:
        with self.device.lock:
            return fdinfo.show(self.drm)

    def release(self) -> None:
        with self.device.lock:
            for item in self._mapped.values():
                item.put()
            self._mapped.clear()
            self.drm.put()
