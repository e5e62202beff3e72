# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from npubox.core import reaper
from npubox.core.drm.device import DrmDevice
from npubox.core.node import Node
from npubox.drivers.accel.ethosu.drv import probe
from tests.drivers.fake_npu import FakePort, platform


@pytest.fixture
def port() -> FakePort:
    return FakePort()


@pytest.fixture
def device(port: FakePort) -> Iterator[DrmDevice]:
    """A probed device; afterwards it must have let go of everything it was given."""
    resources = platform(port)
    made = probe(resources)
    port.writes.clear()
    yield made
    reaper.drain()
    made.unregister()
    assert made.files == []
    assert made.object_count == 0
    assert port.dma.mapped == {}
    assert not port.connected
    assert port.clock.armed == []
    assert resources.sram is not None
    os.close(resources.sram.fd)


@pytest.fixture
def node(device: DrmDevice) -> Iterator[Node]:
    with Node.open(device) as opened:
        yield opened
