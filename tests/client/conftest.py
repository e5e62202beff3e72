# SPDX-License-Identifier: Apache-2.0
"""Devices on the fake node, and the digits network that they run."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from npubox.client import Device, Network
from npubox.client import device as device_module
from tests.client.fake_ethosu import FakeNode, opened
from tests.networks import compiled_by_vela

DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "digits.tflite"
OUTPUTS = 10


def add_one(memory: mmap.mmap) -> None:
    """What the fake NPU computes in the digits network's arena: output i = input i + 1 (both start it)."""
    memory[:OUTPUTS] = bytes((value + 1) & 0xFF for value in memory[:OUTPUTS])


@pytest.fixture(scope="session")
def digits() -> bytes:
    """The digits network compiled for ethos-u65-256."""
    graph = compiled_by_vela(DIGITS.read_bytes(), "ethos-u65-256")
    assert [graph.tensors[i].arena_offset for i in (*graph.inputs, *graph.outputs)] == [0, 0]
    return graph.content


@pytest.fixture
def node() -> Iterator[FakeNode]:
    fake = FakeNode(add_one)
    yield fake
    fake.running.set()


@pytest.fixture
def open_fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Device]:
    def open_(node: FakeNode, *, real: bool = False) -> Device:
        monkeypatch.setattr(device_module, "open_node", lambda *_: opened(node, real=real))
        return Device("fake")

    return open_


@pytest.fixture
def device(node: FakeNode, open_fake: Callable[..., Device]) -> Iterator[Device]:
    with open_fake(node) as made:
        yield made


@pytest.fixture
def network(device: Device, digits: bytes) -> Iterator[Network]:
    with device.load(digits) as loaded:
        yield loaded
