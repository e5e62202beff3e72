# SPDX-License-Identifier: Apache-2.0
"""A preset's machine, its driver in the supervisor's process and its device in one of its own."""

from __future__ import annotations

import errno
import functools
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from npubox.core.caller import Caller
from npubox.core.file import OpenFile
from npubox.core.nodes import NodeInfo, accel_node
from npubox.errors import DeviceError
from npubox.machines.preset import PresetInfo
from npubox.serve.machine import JobWatcher

if TYPE_CHECKING:
    from npubox.machines.split import SplitMachine

_log = logging.getLogger(__name__)
DRIVER = "ethosu"


class PresetMachine:
    """A `ServedMachine`."""

    def __init__(self, preset: PresetInfo) -> None:
        npu = preset.npu
        self._preset = preset
        self.nodes: Sequence[NodeInfo] = (accel_node(npu.node, npu.name, npu.compatible, DRIVER),)
        self._machine: SplitMachine | None = None
        self._thread: threading.Thread | None = None
        self.ready = False
        self.job_watcher: JobWatcher | None = None

    @property
    def processes(self) -> frozenset[int]:
        return frozenset({os.getpid(), *([] if self._machine is None else [self._machine.device_pid])})

    @property
    def machine(self) -> SplitMachine | None:
        return self._machine

    def power_up(self, done: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=self._power_up, args=(done,), name="npubox-power-up")
        self._thread.start()

    def open(self, node: NodeInfo, flags: int, caller: Caller) -> OpenFile:
        from npubox.core.drm.open_file import DrmOpenFile

        return DrmOpenFile(self._powered().device, flags, caller)

    def events(self) -> None:
        return None

    def close(self) -> None:
        if self._thread is not None:
            self._thread.join()
        if self._machine is not None:
            self._machine.close()

    def _powered(self) -> SplitMachine:
        if self._machine is None:
            raise OSError(errno.ENODEV, f"{self._preset.name} did not power up")
        return self._machine

    def _power_up(self, done: Callable[[], None]) -> None:
        try:
            from npubox.machines import kernels_ready
            from npubox.machines.split import SplitMachine

            if sys.stderr.isatty() and not kernels_ready():
                print("npubox: compiling the NPU's kernels, once; this takes a minute", file=sys.stderr)
            machine = SplitMachine(self._preset)
            machine.device.queue_observer = functools.partial(self._job_event, machine)
            self._machine = machine
        except (OSError, DeviceError) as error:
            _log.error("%s did not power up: %s", self._preset.name, error)
        except Exception:
            _log.exception("%s did not power up", self._preset.name)
        self.ready = True
        done()

    def _job_event(
        self, machine: SplitMachine, client_id: int, sequence: int, event: str, error: int
    ) -> None:
        machine.control.job_event(client_id, sequence, event, error)
        if event == "finished" and self.job_watcher is not None:
            self.job_watcher(client_id, sequence, error, machine.control.job(client_id, sequence))
