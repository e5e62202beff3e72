# SPDX-License-Identifier: Apache-2.0
"""Device time that flows in a quiet machine, so that a lost answer becomes a time-out."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from npubox.bus.virtual import VirtualClock

SECOND = 10**9


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    made = VirtualClock()
    yield made
    made.close()


def armed(clock: VirtualClock, deadline: int) -> threading.Event:
    fired = threading.Event()
    clock.call_at(deadline, fired.set)
    return fired


def test_without_a_word_from_devices_time_stands_still(clock: VirtualClock) -> None:
    assert not armed(clock, SECOND).wait(0.1)
    assert clock.now() == 0


def test_timers_fire_in_order_while_all_are_quiet(clock: VirtualClock) -> None:
    loud = True
    clock.flow_when(lambda: True)
    clock.flow_when(lambda: not loud)
    second, first = armed(clock, 2 * SECOND), armed(clock, SECOND)
    assert not first.wait(0.1)
    loud = False
    assert first.wait(10)
    assert second.wait(10)
    assert clock.now() == 2 * SECOND


def test_not_while_a_device_is_busy(clock: VirtualClock) -> None:
    clock.flow_when(lambda: True)
    clock.begin_work()
    fired = armed(clock, SECOND)
    assert not fired.wait(0.1)
    clock.end_work()
    assert fired.wait(10)


def test_work_that_comes_while_devices_are_asked_stops_it(clock: VirtualClock) -> None:
    asked = threading.Event()

    def quiet() -> bool:
        clock.begin_work()
        asked.set()
        return True

    clock.flow_when(quiet)
    fired = armed(clock, SECOND)
    assert asked.wait(10)
    assert not fired.wait(0.1)
    assert clock.now() == 0


def test_a_cancelled_timer_passes_no_time(clock: VirtualClock) -> None:
    clock.flow_when(lambda: True)
    cancelled = clock.call_at(SECOND, lambda: None)
    cancelled.cancel()
    assert armed(clock, 2 * SECOND).wait(10)
    assert clock.now() == 2 * SECOND
