# SPDX-License-Identifier: Apache-2.0
"""The control channel of a virtual machine: what an ABI does not tell.

It is beside the UAPI, never part of it: which job ran when and for how many cycles, why it failed, and
faults to order. It puts together what the driver's job queue and the device say of the same job.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TypeVar

from npubox.devices.ethosu_npu.faults import Fault, RunReport

KEPT_REPORTS = 4096

JobKey = tuple[int, int]
Value = TypeVar("Value")


@dataclass(frozen=True)
class JobReport:
    """What became of a job. Times are device time in nanoseconds; `error` the errno of its fence or 0.

    A job that never reached the hardware has 0 cycles and no fault but an error.
    """

    cycles: int
    start_ns: int
    end_ns: int
    fault: Fault | None
    error: int


class Control:
    """Reports of the jobs of one NPU, by the client id of the open file and the job's number there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._current: JobKey | None = None
        self._running: JobKey | None = None
        self._runs: OrderedDict[JobKey, RunReport] = OrderedDict()
        self._errors: OrderedDict[JobKey, int] = OrderedDict()

    def job(self, client_id: int, sequence: int) -> JobReport | None:
        """The report of a job, None while the job or the NPU's run of it goes on."""
        with self._lock:
            key = (client_id, sequence)
            run, error = self._runs.get(key), self._errors.get(key)
        if error is None or (run is None and not error):
            return None
        if run is None:
            return JobReport(0, 0, 0, None, error)
        return JobReport(run.cycles, run.start_ns, run.end_ns, run.fault, error)

    # The driver's side: DrmDevice.queue_observer

    def job_event(self, client_id: int, sequence: int, event: str, error: int) -> None:
        with self._lock:
            if event == "started":
                self._current = (client_id, sequence)
            elif event == "finished":
                self._keep(self._errors, (client_id, sequence), error)

    # The device's side: its run observer

    def run_started(self) -> None:
        """CMD.run was taken: the run belongs to the job that the driver started last."""
        with self._lock:
            self._running = self._current

    def run_ignored(self, fault: Fault) -> None:
        """CMD.run came while the NPU was running, so the job that it was for never runs."""
        with self._lock:
            if self._current is not None:
                self._keep(self._runs, self._current, RunReport(0, 0, 0, 0, fault))

    def run_finished(self, report: RunReport) -> None:
        with self._lock:
            if self._running is not None:
                self._keep(self._runs, self._running, report)
            self._running = None

    @staticmethod
    def _keep(table: OrderedDict[JobKey, Value], key: JobKey, value: Value) -> None:
        table[key] = value
        if len(table) > KEPT_REPORTS:
            table.popitem(last=False)
