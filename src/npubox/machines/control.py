# SPDX-License-Identifier: Apache-2.0
"""The control channel of a virtual machine: what an ABI does not tell.

It is beside the UAPI, never part of it: which job ran when and for how many cycles, why it failed, what
each of its operations wrote, and faults to order. It puts together what the driver's job queue and the
device say of the same job.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from npubox.devices.ethosu_npu.faults import Fault, RunReport

if TYPE_CHECKING:
    import numpy.typing as npt

    from npubox.devices.ethosu_npu.commands import Command
    from npubox.devices.ethosu_npu.operations import FeatureMap

KEPT_REPORTS = 4096

JobKey = tuple[int, int]


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


@dataclass(frozen=True)
class OperationOutput:
    """The OFM of one operation as it lies in device memory when the operation ends: `values`
    [height, width, channels], of the stored dtype. `job` is the client id of the open file and the job's
    number there; `offset` that of `command` in the stream, in bytes."""

    job: JobKey
    command: str
    offset: int
    zero_point: int
    values: npt.NDArray[Any]


@dataclass
class _Job:
    run: RunReport | None = None
    error: int | None = None
    read: bool = False


class Control:
    """Reports of the jobs of one NPU, by the client id of the open file and the job's number there.

    The report of a job that goes on is kept. So is that of a job of a followed client until it was read.
    Of all others the last `KEPT_REPORTS` are.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._current: JobKey | None = None
        self._running: JobKey | None = None
        self._followed: set[int] = set()
        self._jobs: dict[JobKey, _Job] = {}
        self._spare: OrderedDict[JobKey, None] = OrderedDict()

    def follow(self, client_id: int) -> None:
        """Keep the reports of a client's jobs until `job` has given, or `forget` dropped them."""
        with self._lock:
            self._followed.add(client_id)

    def job(self, client_id: int, sequence: int) -> JobReport | None:
        """The report of a job, None while the job or the NPU's run of it goes on."""
        key = client_id, sequence
        with self._lock:
            job = self._jobs.get(key)
            if job is None or job.error is None or (job.run is None and not job.error):
                return None
            self._mark_read(key, job)
            run, error = job.run, job.error
        if run is None:
            return JobReport(0, 0, 0, None, error)
        return JobReport(run.cycles, run.start_ns, run.end_ns, run.fault, error)

    def forget(self, client_id: int, sequence: int) -> None:
        """Nobody will ask for this job's report."""
        key = client_id, sequence
        with self._lock:
            if key in self._jobs:
                self._mark_read(key, self._jobs[key])

    # The driver's side: DrmDevice.queue_observer

    def job_event(self, client_id: int, sequence: int, event: str, error: int) -> None:
        key = client_id, sequence
        with self._lock:
            job = self._jobs.setdefault(key, _Job())
            if event == "started":
                self._current = key
            elif event == "finished":
                job.error = error
                if job.read or client_id not in self._followed:
                    self._mark_read(key, job)

    # The device's side: its run observer

    def run_started(self) -> None:
        """CMD.run was taken: the run belongs to the job that the driver started last."""
        with self._lock:
            self._running = self._current

    def run_ignored(self, fault: Fault) -> None:
        """CMD.run came while the NPU was running, so the job that it was for never runs."""
        with self._lock:
            self._ran(self._current, RunReport(0, 0, 0, 0, fault))

    def run_finished(self, report: RunReport) -> None:
        with self._lock:
            self._ran(self._running, report)
            self._running = None

    def operation_finished(
        self,
        watcher: Callable[[OperationOutput], None],
        command: Command,
        ofm: FeatureMap,
        values: npt.NDArray[Any],
    ) -> None:
        """An operation of the run wrote `values`; `watcher` hears of it on the device's thread."""
        with self._lock:
            job = self._running
        if job is not None:
            watcher(OperationOutput(job, command.name, command.offset, ofm.zero_point, values))

    def _ran(self, key: JobKey | None, report: RunReport) -> None:
        if key is not None and key in self._jobs:
            self._jobs[key].run = report

    def _mark_read(self, key: JobKey, job: _Job) -> None:
        """Once it is over too, the report may go when there are too many."""
        job.read = True
        if job.error is None:
            return
        self._spare[key] = None
        if len(self._spare) > KEPT_REPORTS:
            del self._jobs[self._spare.popitem(last=False)[0]]
