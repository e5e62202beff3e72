# SPDX-License-Identifier: Apache-2.0
"""The job queue against a backend that ends jobs when the test says so."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable

import pytest

from npubox.core.drm.fence import Fence, new_context
from npubox.core.drm.queue import Entity, Event, Job, JobQueue, Outcome
from npubox.core.lock import DeviceLock
from tests.core.manual_clock import ManualClock
from tests.core.refaccel import fails

TIMEOUT = 1000


class Engine:
    """Runs jobs until told; what a time-out finds is `outcome`."""

    def __init__(self, credit_limit: int = 1) -> None:
        self.lock = DeviceLock()
        self.clock = ManualClock()
        self.started: list[Job] = []
        self.freed: list[Job] = []
        self.events: list[tuple[int, int, Event, int]] = []
        self.outcome = Outcome.RESET
        self.recovered = threading.Event()
        self.refuse = 0
        self.queue = JobQueue(
            "engine",
            self,
            self.lock,
            self.clock,
            credit_limit=credit_limit,
            timeout=TIMEOUT,
            observer=self.observe,
        )

    def run_job(self, job: Job) -> Fence:
        self.started.append(job)
        if self.refuse:
            raise OSError(self.refuse, "refused")
        return Fence(new_context(), 1)

    def timedout_job(self, job: Job) -> Outcome:
        assert not self.lock.held
        self.recovered.set()
        return self.outcome

    def free_job(self, job: Job) -> None:
        assert job.finished.signalled
        self.freed.append(job)

    def observe(self, job: Job, event: Event) -> None:
        assert self.lock.held
        assert event != "finished" or not job.finished.signalled
        assert event != "started" or job not in self.started
        self.events.append((job.entity.client_id, job.sequence, event, job.error))

    def entity(self, client_id: int = 1) -> Entity:
        with self.lock:
            return self.queue.entity(client_id)

    def submit(self, entity: Entity, *dependencies: Fence, credits: int = 1) -> Job:
        job = Job(credits)
        job.add_dependencies(dependencies)
        with self.lock:
            self.queue.arm(entity, job)
            self.queue.push(job)
        return job

    def end(self, job: Job, error: int = 0) -> None:
        assert job.hardware is not None
        job.hardware.signal(error)


def settle(condition: Callable[[], bool]) -> None:
    """Wait for a recovery thread."""
    for _ in range(1000):
        if condition():
            return
        threading.Event().wait(0.005)
    raise AssertionError("nothing happened")


def test_one_job_at_a_time_in_order() -> None:
    engine = Engine()
    entity = engine.entity()
    jobs = [engine.submit(entity) for _ in range(3)]
    assert engine.started == jobs[:1]
    engine.end(jobs[0])
    assert engine.started == jobs[:2]
    assert jobs[0].finished.status == 1
    engine.end(jobs[1], errno.EIO)
    engine.end(jobs[2])
    assert [job.finished.status for job in jobs] == [1, -errno.EIO, 1]
    assert engine.freed == jobs
    assert engine.queue.idle
    assert engine.clock.armed == []


def test_the_oldest_waiting_job_goes_first() -> None:
    engine = Engine()
    one, two = engine.entity(1), engine.entity(2)
    order = [engine.submit(one), engine.submit(one), engine.submit(two), engine.submit(one)]
    for job in order:
        engine.end(job)
    assert engine.started == order


def test_a_job_waits_for_its_dependencies_and_others_overtake_it() -> None:
    engine = Engine()
    gate = Fence(new_context(), 1)
    blocked = engine.submit(engine.entity(1), gate)
    free = engine.submit(engine.entity(2))
    assert engine.started == [free]
    gate.signal(errno.EIO)
    assert engine.started == [free]
    engine.end(free)
    assert engine.started == [free, blocked]


def test_dependencies_keep_the_later_of_a_context() -> None:
    job, context = Job(), new_context()
    early, late = Fence(context, 1), Fence(context, 2)
    job.add_dependencies([late, early])
    assert job.dependencies == [late]


def test_a_dependency_on_the_own_entity_is_no_wait() -> None:
    engine = Engine(credit_limit=2)
    entity = engine.entity()
    first = engine.submit(entity)
    second = engine.submit(entity, first.finished)
    assert engine.started == [first, second]


def test_credits() -> None:
    engine = Engine(credit_limit=3)
    entity = engine.entity()
    small, large, huge = (engine.submit(entity, credits=credits) for credits in (1, 2, 9))
    assert engine.started == [small, large]
    assert huge.credits == 3
    engine.end(small)
    assert engine.started == [small, large]
    engine.end(large)
    assert engine.started == [small, large, huge]
    with fails(errno.EINVAL):
        Job(0)


def test_timeout_resets_and_goes_on() -> None:
    engine = Engine()
    entity = engine.entity()
    hung, following = engine.submit(entity), engine.submit(entity)
    engine.clock.advance(TIMEOUT - 1)
    assert not engine.recovered.is_set()
    engine.clock.advance(1)
    settle(lambda: hung.finished.signalled)
    assert hung.finished.status == -errno.ECANCELED
    settle(lambda: engine.started == [hung, following])
    engine.end(hung)
    engine.end(following)
    assert following.finished.status == 1
    assert engine.freed == [hung, following]


def test_a_false_alarm_gets_its_time_again() -> None:
    engine = Engine()
    engine.outcome = Outcome.NO_HANG
    job = engine.submit(engine.entity())
    engine.clock.advance(TIMEOUT)
    settle(lambda: engine.clock.armed == [2 * TIMEOUT])
    assert not job.finished.signalled
    engine.end(job)
    assert job.finished.status == 1


def test_the_timer_restarts_with_each_job() -> None:
    engine = Engine()
    entity = engine.entity()
    first, _ = engine.submit(entity), engine.submit(entity)
    engine.clock.advance(TIMEOUT - 1)
    engine.end(first)
    assert engine.clock.armed == [2 * TIMEOUT - 1]


def test_a_timer_that_fires_late_is_not_the_next_jobs() -> None:
    engine = Engine()
    entity = engine.entity()
    first, second = engine.submit(entity), engine.submit(entity)
    late = engine.clock.timers[0].callback
    engine.end(first)
    late()
    assert not engine.recovered.is_set()
    assert not second.finished.signalled


def test_a_waiting_job_asks_its_fence_once() -> None:
    class Counting(Fence):
        asked = 0

        def add_callback(self, callback: Callable[[], None]) -> bool:
            self.asked += 1
            return super().add_callback(callback)

    engine, gate = Engine(), Counting(new_context(), 1)
    blocked = engine.submit(engine.entity(1), gate)
    other = engine.entity(2)
    for _ in range(5):
        engine.end(engine.submit(other))
    assert gate.asked == 1
    gate.signal()
    assert engine.started[-1] is blocked


def test_a_fault_is_looked_after_at_once() -> None:
    engine = Engine()
    job = engine.submit(engine.entity())
    with engine.lock:
        engine.queue.fault()
        engine.queue.fault()
    settle(lambda: job.finished.signalled)
    assert job.finished.status == -errno.ECANCELED
    assert engine.clock.now() == 0


def test_a_lost_device_ends_every_job() -> None:
    engine = Engine()
    engine.outcome = Outcome.ENODEV
    entity = engine.entity()
    jobs = [engine.submit(entity) for _ in range(3)]
    engine.clock.advance(TIMEOUT)
    settle(lambda: jobs[2].finished.signalled)
    assert [job.finished.status for job in jobs] == [-errno.ENODEV] * 3
    assert engine.freed == jobs
    with fails(errno.ENODEV):
        engine.submit(entity)
    assert engine.clock.armed == []


def test_a_backend_that_breaks_counts_as_lost(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine()
    engine.timedout_job = None  # type: ignore[assignment, method-assign]
    job = engine.submit(engine.entity())
    engine.clock.advance(TIMEOUT)
    settle(lambda: job.finished.signalled)
    assert job.finished.status == -errno.ENODEV
    assert "cannot be recovered" in caplog.text


def test_a_job_that_cannot_start_ends_with_that_error() -> None:
    engine = Engine()
    engine.refuse = errno.EIO
    job = engine.submit(engine.entity())
    assert job.finished.status == -errno.EIO
    assert engine.freed == [job]


def test_killing_an_entity_ends_what_waits_with_esrch_after_what_runs() -> None:
    engine = Engine()
    entity, other = engine.entity(1), engine.entity(2)
    gate = Fence(new_context(), 1)
    running, waiting, blocked = engine.submit(entity), engine.submit(entity), engine.submit(entity, gate)
    theirs = engine.submit(other)
    with engine.lock:
        engine.queue.kill(entity)
    assert not waiting.finished.signalled
    with fails(errno.ENOENT):
        engine.submit(entity)
    engine.end(running)
    assert [running.finished.status, waiting.finished.status] == [1, -errno.ESRCH]
    assert engine.started == [running, theirs]
    assert not blocked.finished.signalled
    gate.signal()
    assert blocked.finished.status == -errno.ESRCH
    engine.end(theirs)
    assert engine.queue.idle


def test_observer_sees_every_job_in_order() -> None:
    engine = Engine()
    one, two = engine.entity(11), engine.entity(22)
    first, second, third = engine.submit(one), engine.submit(two), engine.submit(one)
    for job, error in ((first, 0), (second, errno.EIO), (third, 0)):
        engine.end(job, error)
    assert engine.events == [
        (11, 0, "queued", 0),
        (11, 0, "started", 0),
        (22, 0, "queued", 0),
        (11, 1, "queued", 0),
        (11, 0, "finished", 0),
        (22, 0, "started", 0),
        (22, 0, "finished", errno.EIO),
        (11, 1, "started", 0),
        (11, 1, "finished", 0),
    ]


def test_threads_submit_and_end() -> None:
    engine = Engine()
    jobs: list[Job] = []
    stop = threading.Event()

    def hardware() -> None:
        done = 0
        while not stop.is_set() or done < len(jobs):
            if done < len(engine.started) and engine.started[done].hardware is not None:
                engine.end(engine.started[done])
                done += 1

    def client(number: int) -> None:
        entity = engine.entity(number)
        for _ in range(200):
            jobs.append(engine.submit(entity))

    worker = threading.Thread(target=hardware)
    clients = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for thread in (worker, *clients):
        thread.start()
    for thread in clients:
        thread.join(60)
    stop.set()
    worker.join(60)
    assert len(engine.freed) == 800
    assert all(job.finished.status == 1 for job in jobs)
