# SPDX-License-Identifier: Apache-2.0
"""The per-open object of a DRM node.

It lives until the open file description and every mapping made through it are gone, as the kernel's
does. Source: the project's facts (accel-core.md §1.6).
"""

from __future__ import annotations

import errno
import itertools
from typing import TYPE_CHECKING

from npubox.core.caller import Caller
from npubox.core.drm.gem import GemObject, delete_handle
from npubox.core.drm.prime_table import PrimeTable
from npubox.core.drm.syncobj import Syncobj
from npubox.core.idr import Idr

if TYPE_CHECKING:
    from npubox.core.drm.device import DrmDevice

_client_ids = itertools.count(1)


class DrmFile:
    """One open file. `client_id` is unique over all devices and never reused."""

    def __init__(self, device: DrmDevice, caller: Caller) -> None:
        self.device = device
        self.client_id = next(_client_ids)
        self.authenticated = caller.sys_admin()
        self.pid = caller.pid
        self.name: str | None = None
        self.handles: Idr[GemObject] = Idr(1)
        self.syncobjs: Idr[Syncobj] = Idr(1)
        self.prime = PrimeTable()
        self._references = 1

    def syncobj(self, handle: int, error: int = errno.ENOENT) -> Syncobj:
        """The sync object behind a handle; OSError `error` if there is none."""
        syncobj = self.syncobjs.get(handle)
        if syncobj is None:
            raise OSError(error, f"this file has no sync object handle {handle}")
        return syncobj

    def get(self) -> None:
        """Under the device's lock: somebody else needs the file too."""
        self._references += 1

    def put(self) -> None:
        """Under the device's lock: drop a reference; with the last one the file is closed."""
        self._references -= 1
        if self._references == 0:
            self._close()

    def _close(self) -> None:
        self.device.files.remove(self)
        for number in self.syncobjs:
            syncobj = self.syncobjs.remove(number)
            assert syncobj is not None
            syncobj.put()
        for handle in self.handles:
            delete_handle(self, handle)
        self.device.driver.postclose(self)
        self.device.put()
