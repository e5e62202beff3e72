# SPDX-License-Identifier: Apache-2.0
"""The supervisor's loop: it receives calls, has them handled, and answers.

One thread, one call at a time, in this order: take note of closed files, receive, handle (which reads,
checks that the caller lives, and writes), answer. A call that blocks is kept aside. Nothing may leave
the loop as an exception: without a supervisor every program of the launch fails.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import select
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from npubox.core.pending import Pending
from npubox.serve.caller import CallerGone, interrupting_signal
from npubox.serve.listener import Call, Listener

_log = logging.getLogger(__name__)

# ns between two looks at whether a signal should end a call that waits, for nothing tells of it: an eighth
# of how long it has waited so far, within these bounds, and more where many wait.
SOONEST_LOOK, LATEST_LOOK, LOOK_EACH = 5_000_000, 320_000_000, 200_000


@dataclass(frozen=True)
class Proceed:
    """The kernel shall carry the call out."""


@dataclass(frozen=True)
class Answered:
    """The handler has answered, or keeps the call to answer it later."""


@dataclass(frozen=True)
class Again:
    """The call shall be handled once more when the wait is over, by its deadline too; errors end it."""

    pending: Pending


PROCEED, ANSWERED = Proceed(), Answered()
Result = int | Pending | Again | Proceed | Answered
Handler = Callable[[Call], Result]


class Handlers(Protocol):
    """Who knows what the calls mean."""

    def table(self) -> dict[int, Handler]:
        """By system call number. A handler raises OSError with the caller's errno."""

    def note_closed(self) -> None:
        """Release the files that nobody holds any more."""


class Observer(Protocol):
    """Who wants to hear of every call that the filter notifies: `npubox trace`."""

    def received(self, call: Call) -> None:
        """A call has come; its caller waits."""

    def answering(self, call: Call, result: int | None, error: int) -> None:
        """What the call will return, or errno; both None and 0: the kernel carries it out. The caller waits
        still, except for an open that succeeded."""

    def released(self, path: str, client_id: int) -> None:
        """The last reference to an open file is gone."""


@dataclass
class _Waiting:
    """A call that was kept aside at `since`, and is looked at again at `look` (CLOCK_MONOTONIC, ns)."""

    call: Call
    pending: Pending
    again: bool
    since: int
    look: int

    @property
    def due(self) -> int:
        deadline = self.pending.deadline
        return self.look if deadline is None else min(self.look, deadline)


class Supervisor:
    """`others` are descriptors of somebody else's, each with what to do when it is readable; once that
    returns False, the descriptor is watched no more."""

    def __init__(self, listener: Listener, others: dict[int, Callable[[], bool]]) -> None:
        self._listener = listener
        self._others = others
        self._observer: Observer | None = None
        self._handlers: Handlers | None = None
        self._table: dict[int, Handler] = {}
        self._waiting: dict[int, _Waiting] = {}
        self._due = 0
        self._done: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # poll, not epoll: epoll drops the kernel's hint to wake us on the caller's own CPU, and waking
        # another one costs more than everything else about a call.
        self._poll = select.poll()
        self._poll.register(listener.fd, select.POLLIN)
        self._beside = select.epoll()
        self._poll.register(self._beside.fileno(), select.POLLIN)
        for fd in (self._wake, *others):
            self._beside.register(fd, select.EPOLLIN)

    @property
    def waiting(self) -> int:
        """How many calls block."""
        return len(self._waiting)

    def use(self, handlers: Handlers, observer: Observer | None = None) -> None:
        self._handlers = handlers
        self._table = handlers.table()
        self._observer = observer

    def watch(self, fd: int) -> None:
        """Come round when `fd`, a source of close events, is readable."""
        self._beside.register(fd, select.EPOLLIN)

    def attend(self, fd: int, what: Callable[[], bool]) -> None:
        """As `others`: do `what` whenever `fd` is readable, until it returns False."""
        self._others[fd] = what
        self._beside.register(fd, select.EPOLLIN)

    def ignore(self, fd: int) -> None:
        """Attend to `fd` no more, if it still was."""
        if self._others.pop(fd, None) is not None:
            self._beside.unregister(fd)

    def post(self, work: Callable[[], None]) -> None:
        """Have the loop do `work`; from any thread."""
        self._done.append(work)
        os.eventfd_write(self._wake, 1)

    def run(self) -> None:
        """Serve until nobody uses the filter any more."""
        listener = self._listener.fd
        while True:
            called = 0
            # The kernel looks at the listener first. So a file that was closed before a call is seen here
            # together with the call, and released before the call is served.
            for fd, events in self._poll.poll(self._timeout() if self._waiting else None):
                if fd == listener:
                    called = events
                else:
                    self._look_beside()
            if called & select.POLLIN:
                self._serve_one()
            elif called & select.POLLHUP:
                self._finish()
                return
            while self._done:
                self._guarded(self._done.popleft())
            if self._waiting:
                self._look_after_waiting()

    def _look_beside(self) -> None:
        for fd, _ in self._beside.poll(0):
            if fd == self._wake:
                os.eventfd_read(self._wake)
            elif fd not in self._others:
                self._note_closed()
            elif not self._others[fd]():
                self.ignore(fd)

    def keep(self, call: Call, pending: Pending, again: bool = False) -> None:
        """Answer the call when `pending` is over, or handle it `again`."""
        now = time.monotonic_ns()
        waiting = self._waiting[call.id] = _Waiting(call, pending, again, now, self._next_look(now, now))
        self._due = min(self._due, waiting.due)
        pending.on_done(lambda: self.post(lambda: self._conclude(call.id)))

    def retry(self, call: Call) -> None:
        """Handle a call that was kept aside once more."""
        self._note_closed()
        self._dispatch(call)

    def _serve_one(self) -> None:
        call = self._listener.receive()
        if call is None:
            return
        observer = self._observer
        if observer is not None:
            self._guarded(functools.partial(observer.received, call))
        self._dispatch(call)

    def _dispatch(self, call: Call) -> None:
        handler = self._table.get(call.number)
        if handler is None:
            self._answer(call, PROCEED)
            return
        try:
            result = handler(call)
        except CallerGone:
            return
        except OSError as error:
            self._fail(call, error.errno or errno.EIO)
        except Exception:
            _log.exception("a call failed in the supervisor")
            self._fail(call, errno.EIO)
        else:
            self._answer(call, result)

    def _answer(self, call: Call, result: Result) -> None:
        if result is PROCEED:
            self.note(call, None)
            self._listener.proceed(call.id)
        elif isinstance(result, int):
            self.note(call, result)
            self._listener.answer(call.id, result)
        elif isinstance(result, Pending | Again):
            again = isinstance(result, Again)
            pending = result.pending if isinstance(result, Again) else result
            if pending.done:
                self._finish_pending(call, pending, again)
            else:
                self.keep(call, pending, again)

    def _fail(self, call: Call, error: int) -> None:
        self.note(call, None, error)
        self._listener.fail(call.id, error)

    def note(self, call: Call, result: int | None, error: int = 0) -> None:
        """Tell the observer, if there is one, how a call ends."""
        observer = self._observer
        if observer is not None:
            self._guarded(functools.partial(observer.answering, call, result, error))

    def note_released(self, path: str, client_id: int) -> None:
        observer = self._observer
        if observer is not None:
            self._guarded(functools.partial(observer.released, path, client_id))

    # Calls that block

    def _conclude(self, id_: int) -> None:
        waiting = self._waiting.pop(id_, None)
        if waiting is not None:
            self._finish_pending(waiting.call, waiting.pending, waiting.again)

    def _finish_pending(self, call: Call, pending: Pending, again: bool) -> None:
        try:
            result = pending.finish()
        except CallerGone:
            return
        except OSError as error:
            self._fail(call, error.errno or errno.EIO)
        except Exception:
            _log.exception("the end of a blocked call failed in the supervisor")
            self._fail(call, errno.EIO)
        else:
            self._dispatch(call) if again else self._answer(call, result)

    def _timeout(self) -> float:
        """Milliseconds until one of the waiting calls must be looked after."""
        return max(self._due - time.monotonic_ns(), 0) / 1e6

    def _look_after_waiting(self) -> None:
        now = time.monotonic_ns()
        if now < self._due:
            return
        for waiting in list(self._waiting.values()):
            deadline = waiting.pending.deadline
            if deadline is not None and deadline <= now:
                waiting.pending.expire()
            elif waiting.look <= now:
                self._look_for_signals(waiting)
                waiting.look = self._next_look(now, waiting.since)
        self._due = min(waiting.due for waiting in self._waiting.values())

    def _look_for_signals(self, waiting: _Waiting) -> None:
        call = waiting.call
        if not self._listener.alive(call.id):
            waiting.pending.cancel()
        elif (error := interrupting_signal(call.tid)) is not None and self._listener.alive(call.id):
            waiting.pending.cancel(error)

    def _next_look(self, now: int, since: int) -> int:
        """Times of a common grid, so that one awakening serves many calls."""
        least = max(min((now - since) // 8, LATEST_LOOK), LOOK_EACH * len(self._waiting))
        interval = SOONEST_LOOK
        while interval < least:
            interval *= 2
        return (now // interval + 1) * interval

    def _note_closed(self) -> None:
        if self._handlers is not None:
            self._guarded(self._handlers.note_closed)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            _log.exception("the supervisor failed beside a call")

    def _finish(self) -> None:
        """The programs are gone: what they still wait for is given up, what they held is released."""
        for waiting in list(self._waiting.values()):
            waiting.pending.cancel()
        self._waiting.clear()
        self._note_closed()
        os.close(self._wake)
        self._beside.close()
