# SPDX-License-Identifier: Apache-2.0
"""dma-buf-resv: for each level of usage."""

from __future__ import annotations

import pytest

from npubox.core.drm.fence_container import FenceArray
from npubox.core.drm.reservation import Reservation, Usage
from tests.core.kunit.fences import mock_fence

every_usage = pytest.mark.parametrize("usage", Usage)


def test_sanitycheck() -> None:
    reservation = Reservation()
    assert reservation.fences(Usage.BOOKKEEP) == []
    assert reservation.singleton(Usage.BOOKKEEP) is None


@every_usage
def test_signaling(usage: Usage) -> None:
    reservation, fence = Reservation(), mock_fence()
    reservation.add(fence, usage)
    assert reservation.singleton(usage) is fence
    fence.signal()
    assert reservation.singleton(usage) is None


@every_usage
def test_for_each(usage: Usage) -> None:
    reservation, fence = Reservation(), mock_fence()
    reservation.add(fence, usage)
    for level in Usage:
        assert reservation.fences(level) == ([fence] if level >= usage else [])


@every_usage
def test_for_each_unlocked(usage: Usage) -> None:
    """Fences that come and go during a walk do not disturb it."""
    reservation = Reservation()
    fences = [mock_fence() for _ in range(3)]
    for fence in fences:
        reservation.add(fence, usage)
    seen = []
    for fence in reservation.fences(usage):
        seen.append(fence)
        fence.signal()
        reservation.add(mock_fence(), usage)
    assert seen == fences
    assert len(reservation.fences(usage)) == 3


@every_usage
def test_get_fences(usage: Usage) -> None:
    reservation = Reservation()
    fences = [mock_fence() for _ in range(2)]
    for fence in fences:
        reservation.add(fence, usage)
    single = reservation.singleton(usage)
    assert isinstance(single, FenceArray)
    assert list(single.fences) == fences
