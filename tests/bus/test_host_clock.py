# SPDX-License-Identifier: Apache-2.0
"""The host's time as a device's clock."""

from __future__ import annotations

import queue

from npubox.bus.host_clock import HostClock


def test_timers_fire_in_order_on_a_thread_of_their_own() -> None:
    clock = HostClock()
    fired: queue.SimpleQueue[str] = queue.SimpleQueue()
    soon = clock.now() + 500_000_000
    late = clock.call_at(soon + 3, lambda: fired.put("late"))
    clock.call_at(soon + 1, lambda: fired.put("early"))
    clock.call_at(soon + 2, lambda: fired.put("cancelled")).cancel()
    assert fired.get(timeout=60) == "early"
    assert fired.get(timeout=60) == "late"
    assert clock.now() >= late.deadline
    clock.close()


def test_sleep_and_close() -> None:
    clock = HostClock()
    before = clock.now()
    clock.sleep(1_000_000)
    assert clock.now() - before >= 1_000_000
    fired: queue.SimpleQueue[str] = queue.SimpleQueue()
    clock.call_at(clock.now() + 3_600_000_000_000, lambda: fired.put("never"))
    clock.close()
    assert fired.empty()
