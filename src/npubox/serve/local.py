# SPDX-License-Identifier: Apache-2.0
"""An open file of a device whose driver runs in this process."""

from __future__ import annotations

from collections.abc import Sequence

from npubox.core.caller import Caller
from npubox.core.drm.device import DrmDevice
from npubox.core.drm.file import DrmFile
from npubox.core.drm.gem import GemObject
from npubox.core.drm.ioctl import dispatch
from npubox.core.drm.mmap import find_mappable
from npubox.core.pending import Pending


class LocalFile:
    """An `OpenFile`."""

    def __init__(self, device: DrmDevice, flags: int, caller: Caller) -> None:
        self._device = device
        self._flags = flags
        self._file: DrmFile = device.open(flags, caller)
        self._mapped: dict[int, GemObject] = {}

    @property
    def client_id(self) -> int:
        return self._file.client_id

    def ioctl(self, request: int, address: int, caller: Caller) -> int | Pending:
        return dispatch(self._file, request, address, caller)

    def mmap(self, length: int, prot: int, flags: int, offset: int) -> None:
        with self._device.lock:
            item = find_mappable(self._file, self._flags, length, prot, flags, offset)
            if offset not in self._mapped:
                item.get()
                self._mapped[offset] = item

    def forgotten(self) -> Sequence[tuple[int, int]]:
        return [(item.offset, item.size) for item in self._mapped.values() if not item.handle_count]

    def unmapped(self, offset: int) -> None:
        with self._device.lock:
            item = self._mapped.get(offset)
            if item is not None and not item.handle_count:
                del self._mapped[offset]
                item.put()

    def close(self) -> None:
        with self._device.lock:
            for item in self._mapped.values():
                item.put()
            self._mapped.clear()
            self._file.put()
