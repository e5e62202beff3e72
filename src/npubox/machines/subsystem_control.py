# SPDX-License-Identifier: Apache-2.0
"""The control channel of a subsystem: what neither its ABI nor its messages tell of an inference.

It puts together what the driver says of a run (whose it is, how it ended) and what the device says of it
(which NPU, when, cycles, why it failed), by the id that the messages carry.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from npubox.devices.ethosu_npu.faults import Fault
from npubox.devices.ethosu_subsystem.faults import InferenceReport

KEPT_REPORTS = 4096


@dataclass(frozen=True)
class InferenceOutcome:
    """What became of a run. Times are device time in nanoseconds, `cycles` those of all its NPU operators,
    `npu` the number of the NPU, -1 where the device never finished it; `error` is an errno or 0, `reason` the
    firmware's."""

    npu: int
    cycles: int
    start_ns: int
    end_ns: int
    error: int
    reason: str | None
    fault: Fault | None


class SubsystemControl:
    """Outcomes by the client id of the open file and the run's number there; those of followed clients are
    kept until they are read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reports: OrderedDict[int, InferenceReport] = OrderedDict()
        self._followed: set[int] = set()
        self._outcomes: dict[tuple[int, int], InferenceOutcome] = {}

    def follow(self, client_id: int) -> None:
        """Keep the outcomes of a client's runs until `job` has given, or `forget` dropped them."""
        with self._lock:
            self._followed.add(client_id)

    def job(self, client_id: int, sequence: int) -> InferenceOutcome | None:
        """The outcome of a run, once; None while it goes on."""
        with self._lock:
            return self._outcomes.pop((client_id, sequence), None)

    def forget(self, client_id: int, sequence: int) -> None:
        """Nobody will ask for this run's outcome."""
        self.job(client_id, sequence)

    def inference_finished(self, report: InferenceReport) -> None:
        """The device's side: it precedes the answer that tells the driver."""
        with self._lock:
            self._reports[report.user_arg] = report
            if len(self._reports) > KEPT_REPORTS:  # of runs that the driver had given up
                self._reports.popitem(last=False)

    def reported(self, request_id: int) -> bool:
        """Whether the device has told of this message's run."""
        with self._lock:
            return request_id in self._reports

    def run_over(self, client_id: int, sequence: int, request_id: int, error: int) -> InferenceOutcome:
        """The driver's side."""
        with self._lock:
            report = self._reports.pop(request_id, None)
            outcome = _outcome(report, error)
            if client_id in self._followed:
                self._outcomes[client_id, sequence] = outcome
        return outcome


def _outcome(report: InferenceReport | None, error: int) -> InferenceOutcome:
    if report is None:
        return InferenceOutcome(-1, 0, 0, 0, error, None, None)
    return InferenceOutcome(
        report.npu, report.cycles, report.start_ns, report.end_ns, error, report.reason, report.fault
    )
