# SPDX-License-Identifier: Apache-2.0
"""The store refuses what would take the host's memory away."""

from __future__ import annotations

import errno

import pytest

from npubox.core import store
from npubox.core.store import LARGE, Store


def test_more_than_half_of_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "memory_left", lambda: 2 * LARGE)
    made = Store()
    try:
        made.free(made.allocate(LARGE), LARGE)
        with pytest.raises(OSError, match="half of the host's free memory") as refused:
            made.allocate(LARGE + 4096)
        assert refused.value.errno == errno.ENOMEM
        assert made.resident_bytes == 0
    finally:
        made.close()


def test_memory_left_is_less_than_there_is() -> None:
    with open("/proc/meminfo", encoding="ascii") as lines:
        total = int(lines.readline().split()[1]) * 1024
    assert 0 < store.memory_left() <= total
