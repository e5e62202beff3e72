# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import itertools
import threading
import time
import weakref

import pytest

from npubox.core.drm.fence import Fence, new_context
from npubox.core.drm.reservation import Reservation, Usage
from npubox.core.pending import Pending


def fence(seqno: int = 1, context: int | None = None) -> Fence:
    return Fence(new_context() if context is None else context, seqno, "driver", "timeline")


def test_a_fence_signals_once() -> None:
    made = fence()
    order: list[int] = []
    assert made.add_callback(lambda: order.append(1))
    assert made.add_callback(lambda: order.append(2))
    assert (made.status, made.driver_name) == (0, "driver")
    assert made.signal(errno.ECANCELED)
    assert not made.signal()
    assert order == [1, 2]
    assert made.status == -errno.ECANCELED
    assert (made.driver_name, made.timeline_name) == ("detached-driver", "signaled-timeline")
    assert not made.add_callback(lambda: order.append(3))
    assert order == [1, 2]


def test_a_removed_callback_does_not_run() -> None:
    made, ran = fence(), [0]

    def callback() -> None:
        ran[0] += 1

    made.add_callback(callback)
    assert made.remove_callback(callback)
    assert not made.remove_callback(callback)
    made.signal()
    assert ran == [0]


def test_long_chains_do_not_recurse() -> None:
    chain = [fence() for _ in range(20_000)]
    for one, following in itertools.pairwise(chain):
        one.add_callback(lambda following=following: following.signal())  # type: ignore[misc]
    chain[0].signal()
    assert chain[-1].signalled


def test_a_failing_callback_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    made, ran = fence(), [0]

    def good() -> None:
        ran[0] += 1

    made.add_callback(lambda: 1 // 0)  # type: ignore[arg-type]
    made.add_callback(good)
    made.signal()
    assert ran == [1]
    assert "ZeroDivisionError" in caplog.text


def test_seqnos_compare_in_32_bits() -> None:
    assert fence(2, 7).is_later(fence(1, 7))
    assert not fence(1, 7).is_later(fence(1, 7))
    assert fence(1, 7).is_later(fence(0xFFFF_FFFF, 7))


def test_reservation_levels() -> None:
    reservation = Reservation()
    levels = {usage: fence() for usage in Usage}
    for usage, made in levels.items():
        reservation.add(made, usage)
    for usage in Usage:
        assert reservation.fences(usage) == [levels[level] for level in Usage if level <= usage]
    levels[Usage.WRITE].signal()
    assert reservation.fences(Usage.READ) == [levels[Usage.KERNEL], levels[Usage.READ]]
    assert (Usage.before(write=True), Usage.before(write=False)) == (Usage.READ, Usage.WRITE)


def test_a_later_fence_replaces_its_context() -> None:
    reservation, context = Reservation(), new_context()
    first, second, reader = fence(1, context), fence(2, context), fence(3, context)
    reservation.add(first, Usage.READ)
    reservation.add(second, Usage.WRITE)
    assert reservation.fences(Usage.BOOKKEEP) == [second]
    reservation.add(reader, Usage.READ)
    assert reservation.fences(Usage.BOOKKEEP) == [second, reader]


def test_pending_waits_for_all() -> None:
    fences = [fence() for _ in range(3)]
    fences[0].signal()
    pending, done = Pending(fences), [0]

    def count() -> None:
        done[0] += 1

    pending.on_done(count)
    fences[1].signal()
    assert not pending.done
    fences[2].signal(errno.EIO)
    assert pending.done
    assert done == [1]
    assert pending.finish() == 0


def test_pending_deadlines_are_absolute_and_never_early() -> None:
    for deadline in (0, -5, time.monotonic_ns() - 1):
        with pytest.raises(OSError) as caught:  # noqa: PT011
            Pending([fence()], deadline).wait()
        assert caught.value.errno == errno.ETIME
        assert Pending([], deadline).wait() == 0
    deadline = time.monotonic_ns() + 30_000_000
    with pytest.raises(OSError):  # noqa: PT011
        Pending([fence()], deadline).wait()
    assert deadline <= time.monotonic_ns() < deadline + 5_000_000_000


def test_pending_wakes_up_from_another_thread() -> None:
    made = fence()
    timer = threading.Timer(0.02, made.signal)
    timer.start()
    assert Pending([made], (1 << 63) - 1).wait() == 0
    timer.join()


def test_pending_cancel_and_finish_steps() -> None:
    made = fence()
    pending = Pending([made])
    seen: list[OSError | None] = []
    pending.on_finish(seen.append)
    pending.cancel()
    with pytest.raises(OSError) as caught:  # noqa: PT011
        pending.finish()
    assert caught.value.errno == errno.EINTR
    assert isinstance(seen[0], OSError)
    made.signal()
    assert pending.done
    with pytest.raises(RuntimeError):
        Pending([fence()]).finish()


def test_a_wait_that_ended_leaves_its_fences() -> None:
    made = fence()
    pending = Pending([made])
    gone = weakref.ref(pending)
    pending.expire()
    del pending
    assert gone() is None
