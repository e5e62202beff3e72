# SPDX-License-Identifier: Apache-2.0
"""A descriptor of a sync object: a reference that can travel to other processes and devices."""

from __future__ import annotations

from npubox.core.drm.syncobj import Syncobj
from npubox.core.file import OpenFile, TokenStandIn


class SyncobjFile(OpenFile):
    """It can do nothing but be imported; polls as always ready (accel-core.md §2.8)."""

    link = "anon_inode:syncobj_file"

    def __init__(self, syncobj: Syncobj) -> None:
        self.syncobj = syncobj
        self.stand_in = TokenStandIn()

    def installed(self) -> None:
        self.syncobj.get()

    def release(self) -> None:
        self.syncobj.put()
