# SPDX-License-Identifier: Apache-2.0
"""The job queue of one hardware engine, after the kernel's drm_sched.

Each client has an entity, a first-in-first-out of jobs. A job runs when its dependencies are done and
the engine has credits for it; among the entities the oldest waiting job goes first. A job that does
not end within the time-out, in device time, is handed to the backend, which decides. Everything here
is guarded by the device's lock; only the backend's time-out handler runs without it, because it
sleeps. Source: the project's facts (accel-core.md §3.10).
"""

from __future__ import annotations

import errno
import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Literal, Protocol

from npubox.core.drm.fence import Fence, new_context
from npubox.core.lock import DeviceLock

_log = logging.getLogger(__name__)

Event = Literal["queued", "started", "finished"]
Observer = Callable[["Job", Event], None]


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    """Device time in nanoseconds, as a bus's clock tells it. `call_at` uses a thread of the clock's."""

    def now(self) -> int: ...

    def call_at(self, deadline: int, callback: Callable[[], None]) -> Timer: ...

    def sleep(self, duration: int) -> None: ...


class Outcome(Enum):
    """What a backend answers about a job that timed out or faulted."""

    RESET = auto()
    """The engine was reset; the job is over with ECANCELED."""
    NO_HANG = auto()
    """False alarm; the job gets its time again."""
    ENODEV = auto()
    """The device is gone; every job is over with ENODEV."""


class Job:
    """One piece of work. A backend subclasses it with what it needs to run it.

    `sequence` counts an entity's jobs from 0 in the order they were submitted; `error` is the errno
    the job ended with, 0 until then and on success.
    """

    def __init__(self, credits: int = 1) -> None:
        if credits < 1:
            raise OSError(errno.EINVAL, "a job needs at least one credit")
        self.credits = credits
        self.dependencies: list[Fence] = []
        self.error = 0
        self.sequence = -1
        self.entity: Entity
        self.scheduled: Fence
        self.finished: Fence
        self.hardware: Fence | None = None
        self.waits_for: Fence | None = None
        self.order = 0

    def add_dependencies(self, fences: Iterable[Fence]) -> None:
        """Wait for these fences too; of one context only the later counts."""
        for fence in fences:
            for index, known in enumerate(self.dependencies):
                if known.context == fence.context:
                    if fence.is_later(known):
                        self.dependencies[index] = fence
                    break
            else:
                self.dependencies.append(fence)


class Backend(Protocol):
    """The driver's side of a queue."""

    def run_job(self, job: Job) -> Fence | None:
        """Start a job, under the lock; the fence that signals its end, None if it is done, OSError if not
        started."""

    def timedout_job(self, job: Job) -> Outcome:
        """Find out what became of a job and reset the engine if need be. Without the lock; may sleep."""

    def free_job(self, job: Job) -> None:
        """A job is over, its fence has signalled: drop what it held. Under the lock."""


class Entity:
    """One client's jobs."""

    def __init__(self, queue: JobQueue, client_id: int) -> None:
        self.queue = queue
        self.client_id = client_id
        self.stopped = False
        self.jobs: deque[Job] = deque()
        self.last: Job | None = None
        self._scheduled_context = new_context()
        self._finished_context = new_context()
        self._sequence = itertools.count()

    def place(self, job: Job) -> None:
        """Give the job its number and fences."""
        job.entity = self
        job.sequence = next(self._sequence)
        name, seqno = self.queue.name, job.sequence + 1
        job.scheduled = Fence(self._scheduled_context, seqno, name, name)
        job.finished = Fence(self._finished_context, seqno, name, name)
        own = (self._scheduled_context, self._finished_context)
        job.dependencies = [fence for fence in job.dependencies if fence.context not in own]


class JobQueue:
    """One engine with `credit_limit` credits. `timeout` is in nanoseconds of `clock`, None for never.

    `lost` is called under the lock when the backend's time-out handler finds nobody there: OSError ENODEV.
    """

    def __init__(
        self,
        name: str,
        backend: Backend,
        lock: DeviceLock,
        clock: Clock,
        *,
        credit_limit: int,
        timeout: int | None,
        observer: Observer | None = None,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self._lost = lost
        self._backend = backend
        self._lock = lock
        self._clock = clock
        self._credit_limit = credit_limit
        self._timeout = timeout
        self._observer = observer
        self._waiting: dict[Entity, None] = {}  # the entities that have jobs, in order
        self._running: list[Job] = []
        self._order = itertools.count()
        self._recovering = False
        self._recovery: threading.Thread | None = None
        self._dead = 0
        self._timer: Timer | None = None
        self._timer_serial = 0

    @property
    def running(self) -> tuple[Job, ...]:
        """The jobs on the engine, oldest first."""
        return tuple(self._running)

    @property
    def idle(self) -> bool:
        return not self._running and not self._waiting

    def entity(self, client_id: int) -> Entity:
        return Entity(self, client_id)

    def arm(self, entity: Entity, job: Job) -> None:
        """Give a job its number and fences; it must be pushed next, and that cannot fail any more.

        OSError ENOENT after the entity was killed, ENODEV after the device went.
        """
        if self._dead:
            raise OSError(self._dead, f"{self.name} is gone")
        if entity.stopped:
            raise OSError(errno.ENOENT, "the file of this job is closed")
        entity.place(job)
        job.credits = min(job.credits, self._credit_limit)
        job.order = next(self._order)

    def push(self, job: Job) -> None:
        """Queue an armed job."""
        job.entity.jobs.append(job)
        self._waiting[job.entity] = None
        self._notify(job, "queued")
        self._pump()

    def kill(self, entity: Entity) -> None:
        """The client is gone: its queued jobs end with ESRCH, in order, after what they depend on."""
        entity.stopped = True
        self._pump()

    def fault(self) -> None:
        """The engine reported an error: look after the oldest running job at once."""
        if self._running:
            self._start_recovery()

    def cancel_all(self, error: int) -> None:
        """The device is gone: every job is over with `error`, and none is taken any more."""
        self._dead = error
        self._arm_timer()
        for job in self.running:
            self._finish(job, error)
        for entity in list(self._waiting):
            while entity.jobs:
                self._finish(self._take_first(entity), error)

    def join(self) -> None:
        """Return when no time-out handler runs any more. Without the lock."""
        recovery = self._recovery
        if recovery is not None and recovery is not threading.current_thread():
            recovery.join()

    def _pump(self) -> None:
        while not self._recovering and not self._dead and (job := self._next_job()) is not None:
            self._start(job)
        self._reap()

    def _next_job(self) -> Job | None:
        ready = [
            entity.jobs[0] for entity in self._waiting if not entity.stopped and self._ready(entity.jobs[0])
        ]
        if not ready:
            return None
        job = min(ready, key=lambda candidate: candidate.order)
        used = sum(running.credits for running in self._running)
        return job if used + job.credits <= self._credit_limit else None

    def _ready(self, job: Job) -> bool:
        while job.dependencies:
            fence = job.dependencies[0]
            if not fence.signalled:
                if fence is job.waits_for:
                    return False
                job.waits_for = fence
                if fence.add_callback(self._wake):
                    return False
            job.dependencies.pop(0)
        return True

    def _wake(self) -> None:
        self._lock.post(self._pump)

    def _start(self, job: Job) -> None:
        self._take_first(job.entity)
        self._running.append(job)
        self._notify(job, "started")
        job.scheduled.signal()
        try:
            job.hardware = self._backend.run_job(job)
        except OSError as error:
            self._finish(job, error.errno or errno.EIO)
            return
        if job.hardware is None or not job.hardware.add_callback(
            lambda: self._lock.post(lambda: self._ended(job))
        ):
            self._finish(job, job.hardware.error if job.hardware else 0)
        else:
            self._arm_timer()

    def _ended(self, job: Job) -> None:
        if job in self._running and job.hardware is not None:
            self._finish(job, job.hardware.error)
            self._pump()

    def _finish(self, job: Job, error: int) -> None:
        if job in self._running:
            self._running.remove(job)
            self._arm_timer()
        job.error = error
        self._notify(job, "finished")
        job.scheduled.signal(error)
        job.finished.signal(error)
        self._backend.free_job(job)

    def _reap(self) -> None:
        for entity in [entity for entity in self._waiting if entity.stopped]:
            while entity.jobs and (entity.last is None or entity.last.finished.signalled):
                job = entity.jobs[0]
                if not self._ready(job):
                    break
                self._finish(self._take_first(entity), errno.ESRCH)

    def _take_first(self, entity: Entity) -> Job:
        entity.last = job = entity.jobs.popleft()
        if not entity.jobs:
            del self._waiting[entity]
        return job

    def _arm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_serial += 1
        if self._running and self._timeout is not None and not self._recovering and not self._dead:
            serial = self._timer_serial
            self._timer = self._clock.call_at(
                self._clock.now() + self._timeout, lambda: self._lock.post(lambda: self._timed_out(serial))
            )

    def _timed_out(self, serial: int) -> None:
        if serial == self._timer_serial and self._running:
            self._start_recovery()

    def _start_recovery(self) -> None:
        # On a thread of its own: it sleeps in device time, which neither the clock's nor the port's
        # threads may do without holding up the clock or the interrupts it waits for.
        if self._recovering or self._dead:
            return
        self._recovering = True
        self._arm_timer()
        job = self._running[0]
        self._recovery = threading.Thread(
            target=self._recover, args=(job,), name=f"{self.name}-timeout", daemon=True
        )
        self._recovery.start()

    def _recover(self, job: Job) -> None:
        gone = False
        try:
            outcome = self._backend.timedout_job(job)
        except Exception as error:
            _log.exception("%s cannot be recovered", self.name)
            outcome = Outcome.ENODEV
            gone = isinstance(error, OSError) and error.errno == errno.ENODEV
        with self._lock:
            self._recovering = False
            if gone:
                self._lost()
            if outcome is Outcome.ENODEV:
                self.cancel_all(errno.ENODEV)
                return
            if outcome is Outcome.RESET and job in self._running:
                done = job.hardware is not None and job.hardware.signalled
                self._finish(job, job.hardware.error if done and job.hardware else errno.ECANCELED)
            self._arm_timer()
            self._pump()

    def _notify(self, job: Job, event: Event) -> None:
        if self._observer is None:
            return
        try:
            self._observer(job, event)
        except Exception:
            _log.exception("a job observer failed")
