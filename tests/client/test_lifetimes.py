# SPDX-License-Identifier: Apache-2.0
"""Closing in any order: nothing breaks that is in use, and nothing is left once all is closed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import numpy as np
import pytest

from npubox.client import Device
from npubox.client.lifetime import Uses
from npubox.errors import DeviceError, ModelError, NpuboxError
from tests.client.conftest import add_one
from tests.client.fake_ethosu import FakeNode

IMAGE = np.full((1, 8, 8, 1), 1, np.int8)
Open = Callable[..., Device]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_any_order_of_closing(node: FakeNode, open_fake: Open, digits: bytes, order: tuple[int, ...]) -> None:
    device = open_fake(node)
    network = device.load(digits)
    arena = device.buffer(network.arena_size)
    node.running.clear()
    inference = network.submit(IMAGE, arena=arena)
    things = [device, network, arena, inference]
    for index in order:
        assert not node.closed
        things[index].close()
        things[index].close()  # twice is fine
        if index == 3:
            node.running.set()
    assert node.closed == 1
    assert not node.objects


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_running_inference_outlives_all(
    node: FakeNode, open_fake: Open, digits: bytes, order: tuple[int, ...]
) -> None:
    device = open_fake(node)
    network = device.load(digits)
    arena = device.buffer(network.arena_size)
    node.running.clear()
    inference = network.submit(IMAGE, arena=arena)
    for index in order:
        (device, network, arena)[index].close()
    node.running.set()
    assert inference.outputs[0].tolist() == [[2] * 10]
    assert node.closed == 1  # finishing was its last use of the device
    inference.close()
    assert inference.outputs[0].tolist() == [[2] * 10]


def test_network_outlives_its_device(node: FakeNode, open_fake: Open, digits: bytes) -> None:
    with open_fake(node) as device:
        network = device.load(digits)
    assert np.asarray(network(IMAGE)).tolist() == [[2] * 10]
    network.close()
    assert node.closed == 1
    assert not node.objects


def test_closed_objects_say_so(node: FakeNode, open_fake: Open, digits: bytes) -> None:
    with open_fake(node) as device, device.load(digits) as network:
        buffer, session = device.buffer(16), network.session()
        node.running.clear()
        inference = network.submit(IMAGE)
        for thing in (buffer, session, inference):
            thing.close()
            assert thing.closed
        node.running.set()
        calls: list[Callable[[], object]] = [
            lambda: buffer.data,
            lambda: session(IMAGE),
            inference.wait,
            lambda: inference.done,
        ]
        for call in calls:
            with pytest.raises(NpuboxError, match="closed"):
                call()
    calls = [lambda: device.load(digits), lambda: device.buffer(1), lambda: network(IMAGE)]
    for call in calls:
        with pytest.raises(NpuboxError, match="closed"):
            call()


def test_arenas_are_recycled(node: FakeNode, open_fake: Open, digits: bytes) -> None:
    with open_fake(node) as device, device.load(digits) as network:
        for _ in range(5):
            network(IMAGE)
        assert len({job.region_bo_handles[1] for job in node.jobs}) == 1
        before = len(node.objects)
        inferences = [network.submit(IMAGE) for _ in range(20)]
        for inference in inferences:
            inference.wait()
        assert len(node.objects) < before + 5  # the pool is small


def test_abandoned_arena_is_not_recycled(node: FakeNode, open_fake: Open, digits: bytes) -> None:
    with open_fake(node) as device, device.load(digits) as network:
        node.running.clear()
        network.submit(IMAGE).close()
        abandoned = node.jobs[0].region_bo_handles[1]
        assert abandoned not in node.objects
        node.running.set()
        assert np.asarray(network(IMAGE)).tolist() == [[2] * 10]


def test_kept_view_outlives_its_buffer(node: FakeNode, open_fake: Open) -> None:
    with open_fake(node) as device:
        buffer = device.buffer(4096)
        view = buffer.data
        view[0] = 9
        buffer.close()
        assert view[0] == 9
    assert node.closed == 1


def test_left_open_is_freed_later(node: FakeNode, open_fake: Open, digits: bytes) -> None:
    device = open_fake(node)
    network = device.load(digits)
    network.session()(IMAGE)
    network.submit(IMAGE)
    things = [device, network]
    del device, network
    with pytest.warns(ResourceWarning, match="left open"):
        things.clear()
    deadline = time.monotonic() + 10
    while not node.closed and time.monotonic() < deadline:
        time.sleep(0.01)
    assert node.closed == 1
    assert not node.objects


def test_failed_loads_leave_nothing(node: FakeNode, open_fake: Open, digits: bytes) -> None:
    with open_fake(node) as device:
        with pytest.raises(ModelError):
            device.load(digits[:-2000])
        with pytest.raises(ModelError):
            device.load(b"")
        assert not node.objects
    assert node.closed == 1


def test_other_drivers_are_refused_by_name(open_fake: Open) -> None:
    node = FakeNode(add_one, driver=b"rocket")
    with pytest.raises(DeviceError, match="'rocket'"):
        open_fake(node)
    assert node.closed == 1


def test_uses_free_once() -> None:
    freed = []
    uses = Uses(lambda: freed.append(1))
    uses.hold()
    uses.drop()
    assert not freed
    uses.drop()
    assert freed == [1]
    with pytest.raises(NpuboxError):
        uses.hold()
