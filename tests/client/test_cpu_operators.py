# SPDX-License-Identifier: Apache-2.0
"""Networks that Vela leaves partly on the CPU run whole, in the operators' order."""

from __future__ import annotations

import mmap
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from npubox.client import Device, Network
from npubox.errors import ModelError
from npubox.fallback.verify import reference_outputs
from tests.client.fake_ethosu import FakeNode
from tests.client.graphs import INPUT_SCALE, OUTPUT_SCALE, float_edges, only_quantize
from tests.fallback.graphs import transpose_conv
from tests.fallback.processes import workers
from tests.networks import compiled_by_vela

Open = Callable[..., Device]


def twice(memory: mmap.mmap) -> None:
    """The fake NPU's operator: stored output = 2 * stored input, at the offsets of Vela's plan."""
    memory[Y:Y_END] = bytes((2 * value) & 0xFF for value in memory[X : X + Y_END - Y])


GRAPH = compiled_by_vela(float_edges(), "ethos-u65-256")
X = next(tensor.arena_offset for tensor in GRAPH.tensors if tensor.name == "x") or 0
Y = next(tensor.arena_offset for tensor in GRAPH.tensors if tensor.name == "y") or 0
Y_END = Y + 4


@pytest.fixture
def node() -> Iterator[FakeNode]:
    fake = FakeNode(twice)
    yield fake
    fake.running.set()


@pytest.fixture
def network(device: Device) -> Iterator[Network]:
    with device.load(GRAPH.content) as loaded:
        yield loaded


def real(step: int) -> np.ndarray:
    return np.full((1, 8), step * INPUT_SCALE, np.float32)


def test_placement(network: Network) -> None:
    assert network.placement.npu == ("ethos-u",)
    assert network.placement.cpu == ("QUANTIZE", "DEQUANTIZE")


def test_whole_network(node: FakeNode, network: Network) -> None:
    made = np.asarray(network(real(7)))
    assert str(made.dtype) == "float32"
    assert made == pytest.approx(np.full((1, 4), 14 * OUTPUT_SCALE))
    assert len(node.jobs) == 1


def test_polling_moves_it_on(node: FakeNode, network: Network) -> None:
    node.running.clear()
    with network.submit(real(3)) as inference:
        assert not inference.done
        node.running.set()
        inference.wait(10)
        assert inference.outputs[0] == pytest.approx(np.full((1, 4), 6 * OUTPUT_SCALE))


def test_many_at_once(network: Network) -> None:
    def run(step: int) -> bool:
        return np.allclose(np.asarray(network(real(step))), 2 * step * OUTPUT_SCALE)

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(run, range(60)))


def test_nothing_on_the_npu(node: FakeNode, open_fake: Open) -> None:
    with open_fake(node) as device, device.load(only_quantize()) as network:
        assert network.placement.npu == ()
        with network.submit(real(5)) as inference:
            assert inference.done
            assert inference.outputs[0].tolist() == [[5] * 8]
            assert inference.cycles is None
    assert not node.jobs


def test_their_process_ends_with_the_network(node: FakeNode, open_fake: Open) -> None:
    with open_fake(node) as device, device.load(only_quantize()) as one:
        with device.load(only_quantize()) as other:
            assert not workers()
            for network in (one, other):
                assert np.asarray(network(real(5))).tolist() == [[5] * 8]
            assert len(workers()) == 2
        assert len(workers()) == 1
    assert not workers()


def test_a_crash_fails_the_inference_and_no_other(network: Network) -> None:
    np.asarray(network(real(1)))
    (pid,) = workers()
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        inference = pool.submit(network.submit, real(2))
        time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ModelError, match=r"kernel of CPU operator 0 \(QUANTIZE\) crashed \(SIGKILL\)"):
            inference.result(20)
    assert np.asarray(network(real(7))) == pytest.approx(np.full((1, 4), 14 * OUTPUT_SCALE))


def test_transpose_conv_with_its_shape_as_an_input(node: FakeNode, open_fake: Open) -> None:
    content = transpose_conv(shape_is_input=True)
    arrays = (
        np.zeros(4, np.int32),
        np.random.default_rng(2).integers(-999, 999, (1, 2, 5, 8)).astype(np.int16),
    )
    with open_fake(node) as device, device.load(content) as network:
        assert network.placement.cpu == ("TRANSPOSE_CONV",)
        (expected,) = reference_outputs(content, arrays).outputs
        np.testing.assert_array_equal(np.asarray(network(*arrays)), expected, strict=True)
