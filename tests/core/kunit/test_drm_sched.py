# SPDX-License-Identifier: Apache-2.0
"""drm_sched's basic, timeout, cancel and credits suites, on the job queue."""

from __future__ import annotations

import errno

import pytest

from npubox.core.drm.queue import Job, Outcome
from tests.core.refaccel import fails
from tests.core.test_queue import TIMEOUT, Engine, settle


def test_drm_sched_basic_submit() -> None:
    engine = Engine()
    job = engine.submit(engine.entity())
    assert job.scheduled.signalled
    assert not job.finished.signalled
    engine.end(job)
    assert job.finished.status == 1


@pytest.mark.parametrize("entities", [1, 4])
@pytest.mark.parametrize("chained", [False, True], ids=["independent", "dependency chain"])
def test_drm_sched_basic_test(entities: int, chained: bool) -> None:
    engine = Engine()
    owners = [engine.entity(number) for number in range(entities)]
    jobs: list[Job] = []
    for index in range(100):
        dependency = [jobs[-1].finished] if chained and jobs else []
        jobs.append(engine.submit(owners[index % entities], *dependency))
    for job in jobs:
        assert engine.started[-1] is job
        engine.end(job)
    assert engine.freed == jobs
    assert engine.queue.idle


def test_drm_sched_basic_entity_cleanup() -> None:
    engine = Engine()
    owners = [engine.entity(number) for number in range(4)]
    jobs = [engine.submit(owners[index % 4]) for index in range(100)]
    for job in jobs[:50]:
        engine.end(job)
    with engine.lock:
        for owner in owners:
            engine.queue.kill(owner)
    engine.end(jobs[50])
    assert [job.finished.status for job in jobs] == [1] * 51 + [-errno.ESRCH] * 49
    assert engine.queue.idle


def test_drm_sched_basic_timeout() -> None:
    engine = Engine()
    job = engine.submit(engine.entity())
    engine.clock.advance(TIMEOUT // 2)
    assert not engine.recovered.is_set()
    engine.clock.advance(TIMEOUT // 2)
    settle(lambda: job.finished.signalled)
    assert engine.recovered.is_set()
    assert job.finished.status == -errno.ECANCELED


def test_drm_sched_skip_reset() -> None:
    engine = Engine()
    engine.outcome = Outcome.NO_HANG
    job = engine.submit(engine.entity())
    engine.clock.advance(TIMEOUT)
    settle(lambda: engine.clock.armed == [2 * TIMEOUT])
    assert engine.recovered.is_set()
    assert not job.finished.signalled
    engine.end(job)
    assert job.finished.status == 1


def test_drm_sched_basic_cancel() -> None:
    engine = Engine()
    job = engine.submit(engine.entity())
    assert job.scheduled.signalled
    with engine.lock:
        engine.queue.cancel_all(errno.ECANCELED)
    assert job.finished.status == -errno.ECANCELED
    assert engine.freed == [job]


def test_drm_sched_test_credits() -> None:
    engine = Engine(credit_limit=2)
    entity = engine.entity()
    jobs = [engine.submit(entity) for _ in range(4)]
    for done in range(4):
        assert len(engine.started) == min(done + 2, 4)
        assert len(engine.queue.running) <= 2
        engine.end(jobs[done])
    with fails(errno.EINVAL):
        engine.submit(entity, credits=0)
