# SPDX-License-Identifier: Apache-2.0
"""Which reports the control channel keeps, and what it can show of a job's operations."""

from __future__ import annotations

import pytest

from npubox.devices.ethosu_npu.faults import RunReport
from npubox.machines.control import KEPT_REPORTS, Control

CLIENT = 3


def queue(control: Control, *sequences: int, client: int = CLIENT) -> None:
    for sequence in sequences:
        control.job_event(client, sequence, "queued", 0)


def run(control: Control, *sequences: int, client: int = CLIENT) -> None:
    """The job runs for as many cycles as its number says."""
    for sequence in sequences:
        control.job_event(client, sequence, "started", 0)
        control.run_started()
        control.run_finished(RunReport(sequence, 0, sequence, 1))
        control.job_event(client, sequence, "finished", 0)


def test_a_followed_clients_reports_wait_until_they_are_read() -> None:
    control = Control()
    control.follow(CLIENT)
    jobs = range(2 * KEPT_REPORTS)
    queue(control, *jobs)
    run(control, *jobs)
    for sequence in jobs:
        report = control.job(CLIENT, sequence)
        assert report is not None
        assert (report.cycles, report.error) == (sequence, 0)
    assert control.job(CLIENT, 0) is None  # read long ago
    assert control.job(CLIENT, jobs[-1]) is not None


def test_reports_that_nobody_follows_are_bounded() -> None:
    control = Control()
    for sequence in range(KEPT_REPORTS + 10):
        queue(control, sequence)
        run(control, sequence)
    kept = [control.job(CLIENT, sequence) is not None for sequence in range(KEPT_REPORTS + 10)]
    assert kept == [False] * 10 + [True] * KEPT_REPORTS


@pytest.mark.parametrize("early", [True, False], ids=["before it ended", "after"])
def test_forgotten_reports_are_bounded(early: bool) -> None:
    control = Control()
    control.follow(CLIENT)
    for sequence in range(KEPT_REPORTS + 10):
        queue(control, sequence)
        if early:
            control.forget(CLIENT, sequence)
        run(control, sequence)
        if not early:
            control.forget(CLIENT, sequence)
    assert control.job(CLIENT, 9) is None
    assert control.job(CLIENT, 10) is not None


def test_a_job_in_flight_outlives_any_number_of_others() -> None:
    control = Control()
    control.follow(CLIENT)
    queue(control, 0)
    control.job_event(CLIENT, 0, "started", 0)
    control.run_started()
    for sequence in range(KEPT_REPORTS + 1):
        queue(control, sequence, client=4)
        control.job_event(4, sequence, "finished", 125)
    assert control.job(CLIENT, 0) is None
    control.run_finished(RunReport(77, 0, 77, 1))
    control.job_event(CLIENT, 0, "finished", 0)
    report = control.job(CLIENT, 0)
    assert report is not None
    assert report.cycles == 77
