# SPDX-License-Identifier: Apache-2.0
"""A launch on the reference driver, extended by calls that block: python -m tests.serve.refmachine REPORT
[--tier=B] [--full] [--user] -- PROGRAM [ARG]...

With --user it first becomes the user nobody, without a capability. REPORT gets, as JSON, what is left
when the last program is gone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from npubox.core.caller import Caller
from npubox.core.drm.device import DrmDevice, Minors
from npubox.core.drm.driver import ioctl
from npubox.core.drm.fence import Fence, new_context
from npubox.core.drm.file import DrmFile
from npubox.core.drm.open_file import DrmOpenFile
from npubox.core.nodes import NodeInfo, accel_node
from npubox.core.pending import Pending
from npubox.core.usermem import UserMemory
from npubox.machines.part import AttributeWatcher, JobWatcher
from npubox.serve.execute import Request, execute
from npubox.serve.launch import Wish
from npubox.uapi.ioctl import iowr
from tests.core.refaccel import RefAccel, Word
from tests.processes import become_nobody

WAIT = iowr("REFACCEL_WAIT", "d", 0x45, Word)
SIGNAL = iowr("REFACCEL_SIGNAL", "d", 0x46, Word)
CRASH = iowr("REFACCEL_CRASH", "d", 0x47, Word)


class WaitingRefAccel(RefAccel):
    """WAIT blocks until SIGNAL, or a CLOCK_MONOTONIC time in ns (0 for ever), and counts itself."""

    def __init__(self) -> None:
        super().__init__()
        self.fence = Fence(new_context(), 1)
        self.waits = 0

    @ioctl(WAIT)
    def wait(self, file: DrmFile, args: Word, memory: UserMemory) -> Pending:
        self.waits += 1
        return Pending([self.fence], args.value or None)

    @ioctl(SIGNAL)
    def signal(self, file: DrmFile, args: Word, memory: UserMemory) -> None:
        args.value = self.waits
        fence, self.fence = self.fence, Fence(new_context(), 1)
        fence.signal()

    @ioctl(CRASH)
    def crash(self, file: DrmFile, args: Word, memory: UserMemory) -> None:
        raise RuntimeError("a driver's mistake")


class RefMachine:
    """A `ServedMachine` whose device is in the supervisor's process."""

    ready = True

    def __init__(self, report: Path) -> None:
        self.nodes: Sequence[NodeInfo] = (accel_node("/dev/accel/accel0", "refaccel.0", (), "refaccel"),)
        self._report = report
        self.processes = frozenset({os.getpid()})
        self.job_watcher: JobWatcher | None = None
        self.attribute_watcher: AttributeWatcher | None = None
        self.device = DrmDevice(WaitingRefAccel(), "refaccel.0", minors=Minors())
        self.device.register()

    def power_up(self, done: Callable[[], None]) -> None:
        raise AssertionError("it is powered up")

    def open(self, node: NodeInfo, flags: int, caller: Caller) -> DrmOpenFile:
        return DrmOpenFile(self.device, flags, caller)

    def events(self) -> None:
        return None

    def close(self) -> None:
        left = {
            "files": len(self.device.files),
            "objects": self.device.object_count,
            "bytes": self.device.store.resident_bytes,
        }
        whole = self._report.with_suffix(".part")
        whole.write_text(json.dumps(left))
        whole.rename(self._report)


def main(arguments: list[str]) -> int:
    split = arguments.index("--")
    report, *options = arguments[:split]
    full = "--full" in options
    if "--user" in options:
        become_nobody()
    wish = Wish(all_opens=full, files=full, seccomp_only="--tier=B" in options)
    return execute(Request(arguments[split + 1 :], lambda: RefMachine(Path(report)), wish))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
