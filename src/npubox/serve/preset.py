# SPDX-License-Identifier: Apache-2.0
"""A preset's machine, its drivers in the supervisor's process and its devices in their own."""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from npubox.core.caller import Caller
from npubox.core.file import OpenFile
from npubox.core.nodes import NodeInfo
from npubox.errors import DeviceError
from npubox.machines.part import AttributeWatcher, FaultWatcher, JobWatcher, MessageWatcher
from npubox.machines.preset import PresetInfo

if TYPE_CHECKING:
    from npubox.machines.machine import Parts

_log = logging.getLogger(__name__)


class PresetMachine:
    """A `ServedMachine`."""

    def __init__(self, preset: PresetInfo) -> None:
        self._preset = preset
        self.nodes: Sequence[NodeInfo] = preset.nodes
        self._parts: Parts | None = None
        self._thread: threading.Thread | None = None
        self.ready = False
        self.job_watcher: JobWatcher | None = None
        self.message_watcher: MessageWatcher | None = None
        self.fault_watcher: FaultWatcher | None = None
        self.attribute_watcher: AttributeWatcher | None = None

    @property
    def processes(self) -> frozenset[int]:
        return frozenset({os.getpid()}).union(() if self._parts is None else self._parts.processes)

    @property
    def parts(self) -> Parts | None:
        """Once it is powered up."""
        return self._parts

    def power_up(self, done: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=self._power_up, args=(done,), name="npubox-power-up")
        self._thread.start()

    def open(self, node: NodeInfo, flags: int, caller: Caller) -> OpenFile:
        if self._parts is None:
            raise OSError(errno.ENODEV, f"{self._preset.name} did not power up")
        return self._parts.open(node, flags, caller)

    def events(self) -> None:
        return None

    def close(self) -> None:
        if self._thread is not None:
            self._thread.join()
        if self._parts is not None:
            self._parts.close()

    def _power_up(self, done: Callable[[], None]) -> None:
        try:
            from npubox.machines import kernels_ready
            from npubox.machines.machine import Parts

            if self._preset.compiled and sys.stderr.isatty() and not kernels_ready():
                print("npubox: compiling the NPU's kernels, once; this takes a minute", file=sys.stderr)
            parts = Parts(self._preset, split=True)
            parts.watch_jobs(self._job_over)
            if self.message_watcher is not None:
                parts.watch_messages(self.message_watcher)
            if self.fault_watcher is not None:
                parts.watch_faults(self.fault_watcher)
            if self.attribute_watcher is not None:
                parts.watch_attributes(self.attribute_watcher)
            self._parts = parts
        except (OSError, DeviceError) as error:
            _log.error("%s did not power up: %s", self._preset.name, error)
        except Exception:
            _log.exception("%s did not power up", self._preset.name)
        self.ready = True
        done()

    def _job_over(self, client_id: int, sequence: int, error: int, report: object) -> None:
        if self.job_watcher is not None:
            self.job_watcher(client_id, sequence, error, report)
