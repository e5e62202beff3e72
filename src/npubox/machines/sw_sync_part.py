# SPDX-License-Identifier: Apache-2.0
"""sw_sync, powered up."""

from __future__ import annotations

from pathlib import Path

from npubox.core.caller import Caller
from npubox.core.file import OpenFile
from npubox.core.nodes import NodeInfo, sw_sync_nodes
from npubox.core.sw_sync import SwSyncFile
from npubox.machines.part import JobWatcher


class SwSyncPart:
    """A `Part`."""

    processes: frozenset[int] = frozenset()
    job_watcher: JobWatcher | None = None
    nodes = sw_sync_nodes()

    def open(self, node: NodeInfo, flags: int, caller: Caller) -> OpenFile:
        """A timeline, called as its opener's process is."""
        return SwSyncFile(Path(f"/proc/{caller.pid}/comm").read_text(errors="replace").rstrip("\n"))

    def close(self) -> None:
        """Timelines end with their files."""
