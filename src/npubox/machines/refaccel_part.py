# SPDX-License-Identifier: Apache-2.0
"""The reference driver, powered up: it has no hardware, so it always is in this process."""

from __future__ import annotations

import errno

from npubox.core.caller import Caller
from npubox.core.drm.open_file import DrmOpenFile
from npubox.core.file import OpenFile
from npubox.core.nodes import NodeInfo
from npubox.drivers.accel.refaccel.act import ActFile
from npubox.drivers.accel.refaccel.drv import probe
from npubox.machines.part import JobWatcher
from npubox.machines.refaccel import ACT, RefAccelPreset


class RefAccelPart:
    """A `Part`."""

    processes: frozenset[int] = frozenset()
    job_watcher: JobWatcher | None = None

    def __init__(self, preset: RefAccelPreset) -> None:
        self.nodes = preset.nodes
        self.device = probe(preset.name)

    def open(self, node: NodeInfo, flags: int, caller: Caller) -> OpenFile:
        if node.path == ACT:
            return ActFile(self.device)
        if not self.device.registered:
            raise OSError(errno.ENOENT, f"{node.path} went with its device")
        return DrmOpenFile(self.device, flags, caller)

    def close(self) -> None:
        self.device.unplug()
