# SPDX-License-Identifier: Apache-2.0
"""dma-buf-fence."""

from __future__ import annotations

import errno
import threading
import time

from npubox.core.drm.fence import signalled_fence
from npubox.core.pending import Pending
from tests.core.kunit.fences import mock_fence
from tests.core.refaccel import fails


def nothing() -> None:
    """A callback."""


def test_sanitycheck() -> None:
    fence = mock_fence()
    assert (fence.status, fence.driver_name, fence.timeline_name) == (0, "mock", "mock")
    assert fence.signal()


def test_signaling() -> None:
    fence = mock_fence()
    assert not fence.signalled
    assert fence.signal()
    assert fence.signalled
    assert not fence.signal()


def test_add_callback() -> None:
    fence, seen = mock_fence(), [0]
    assert fence.add_callback(lambda: seen.append(1))
    fence.signal()
    assert seen == [0, 1]


def test_late_add_callback() -> None:
    fence, seen = mock_fence(), [0]
    fence.signal()
    assert not fence.add_callback(lambda: seen.append(1))
    fence.signal()
    assert seen == [0]


def test_rm_callback() -> None:
    fence = mock_fence()
    assert fence.add_callback(nothing)
    assert fence.remove_callback(nothing)
    fence.signal()
    assert fence.signalled


def test_late_rm_callback() -> None:
    fence = mock_fence()
    assert fence.add_callback(nothing)
    fence.signal()
    assert not fence.remove_callback(nothing)


def test_status() -> None:
    fence = mock_fence()
    assert fence.status == 0
    fence.signal()
    assert fence.status == 1


def test_error() -> None:
    fence = mock_fence()
    fence.signal(errno.EIO)
    assert fence.status == -errno.EIO


def test_wait() -> None:
    fence = mock_fence()
    with fails(errno.ETIME):
        Pending([fence], 0).wait()
    fence.signal()
    assert Pending([fence], 0).wait() == 0


def test_wait_timeout() -> None:
    fence = mock_fence()
    timer = threading.Timer(0.01, fence.signal)
    timer.start()
    assert Pending([fence], time.monotonic_ns() + 60_000_000_000).wait() == 0
    assert fence.signalled
    timer.join()


def test_stub() -> None:
    stubs = [signalled_fence() for _ in range(64)]
    assert all(stub.signalled for stub in stubs)
    assert len({stub.context for stub in stubs}) == 64


def test_race_signal_callback() -> None:
    """Whoever adds a callback while another thread signals is called, or told that it is too late; never
    neither."""
    for _ in range(300):
        fence, start, called = mock_fence(), threading.Barrier(2), threading.Event()

        def signal(fence=fence, start=start) -> None:  # type: ignore[no-untyped-def]
            start.wait()
            fence.signal()

        thread = threading.Thread(target=signal)
        thread.start()
        start.wait()
        added = fence.add_callback(called.set)
        thread.join()
        assert called.is_set() == added
