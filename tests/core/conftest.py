# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator

import pytest

from npubox.core import reaper
from npubox.core.drm.device import DrmDevice
from npubox.core.node import Node
from tests.core.refaccel import driver_of, make_device, open_node


@pytest.fixture
def device() -> Iterator[DrmDevice]:
    """A device that must be released, with nothing left, once the test has closed its nodes."""
    made = make_device()
    yield made
    reaper.drain()
    made.unregister()
    assert made.files == []
    assert made.object_count == 0
    assert driver_of(made).released


@pytest.fixture
def node(device: DrmDevice) -> Iterator[Node]:
    with open_node(device) as opened:
        yield opened


@pytest.fixture
def user(device: DrmDevice) -> Iterator[Node]:
    """A node opened without CAP_SYS_ADMIN."""
    with open_node(device, root=False) as opened:
        yield opened
