# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

import pytest

from npubox.core.lock import DeviceLock


def test_work_runs_under_the_lock_at_once_or_on_release() -> None:
    lock, ran = DeviceLock(), list[str]()

    def work(name: str) -> None:
        assert lock.held
        ran.append(name)

    lock.post(lambda: work("free"))
    assert ran == ["free"]
    with lock:
        lock.post(lambda: work("held"))
        lock.post(lambda: lock.post(lambda: work("nested")))
        assert ran == ["free"]
    assert ran == ["free", "held", "nested"]
    assert not lock.held


def test_failing_work_is_logged_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    lock, ran = DeviceLock(), list[int]()

    def broken() -> None:
        raise RuntimeError("broken work")

    with lock:
        lock.post(broken)
        lock.post(lambda: ran.append(1))
    assert ran == [1]
    assert "broken work" in caplog.text


def test_no_work_is_lost_between_threads() -> None:
    lock, total = DeviceLock(), [0]

    def add() -> None:
        total[0] += 1

    def worker() -> None:
        for turn in range(2000):
            if turn % 3:
                lock.post(add)
            else:
                with lock:
                    add()

    threads = [threading.Thread(target=worker) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert total == [12_000]
