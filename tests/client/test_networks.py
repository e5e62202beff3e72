# SPDX-License-Identifier: Apache-2.0
"""End to end on virtual machines: every vector of every network, equal to its oracle bit for bit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import npubox
from tests.client.graphs import float_edges
from tests.networks import shared_network

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
STAGE_1 = (
    "hello_world_int8",
    "kws_dscnn_int8",
    "ic_resnet8_int8",
    "person_detect",
    "coral_tf2_mobilenet_v2_1.0_224_ptq",
)


@pytest.fixture(scope="module")
def device() -> Iterator[npubox.Device]:
    with npubox.open("ethos-u65-256") as opened:
        yield opened


def vectors(path: Path) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Inputs and expected outputs of each vector stored beside a shared network."""
    with np.load(path.with_suffix(".npz")) as stored:
        k = 0
        while f"input0_{k}" in stored:
            yield _numbered(stored, "input", k), _numbered(stored, "output", k)
            k += 1


def _numbered(stored: Mapping[str, np.ndarray], kind: str, k: int) -> list[np.ndarray]:
    names = itertools.takewhile(lambda name: name in stored, (f"{kind}{i}_{k}" for i in itertools.count()))
    return [stored[name] for name in names]


@pytest.mark.shared
@pytest.mark.parametrize("name", STAGE_1)
def test_shared_networks(device: npubox.Device, name: str) -> None:
    path = shared_network(name)
    with device.load(path) as network:
        assert network.placement.cpu == ()
        for number, (inputs, expected) in enumerate(vectors(path)):
            with network.submit(*inputs) as inference:
                for ours, theirs in zip(inference.outputs, expected, strict=True):
                    np.testing.assert_array_equal(ours, theirs, f"vector {number}")
                assert inference.cycles
                assert inference.device_time_ns


@pytest.mark.shared
@pytest.mark.parametrize("name", [*STAGE_1, "trained_lstm_int8"])
@pytest.mark.parametrize(
    ("accelerator", "legacy"),
    [
        ("ethos-u55-128", False),
        ("ethos-u55-128", True),
        ("ethos-u65-512", False),
        ("ethos-u65-512", True),
        ("ethos-u65-256", True),
    ],
)
def test_shared_networks_on_other_npus_and_by_the_legacy_generator(
    accelerator: str, legacy: bool, name: str
) -> None:
    path, options = shared_network(name), npubox.CompileOptions(legacy=legacy)
    with npubox.open(accelerator) as device, device.load(path, options) as network:
        assert network.placement.cpu == ()
        for number, (inputs, expected) in enumerate(vectors(path)):
            with network.session() as session, session.submit(*inputs) as inference:
                for ours, theirs in zip(inference.outputs, expected, strict=True):
                    np.testing.assert_array_equal(ours.reshape(theirs.shape), theirs, f"vector {number}")


@pytest.mark.shared
def test_reset_session_starts_afresh(device: npubox.Device) -> None:
    """The oracle starts each vector from fresh state."""
    path = shared_network("trained_lstm_int8")
    with device.load(path) as network, network.session() as session:
        for inputs, expected in vectors(path):
            session.reset()
            np.testing.assert_array_equal(session(*inputs), expected[0])


@pytest.mark.shared
def test_state_persists(device: npubox.Device) -> None:
    """In the default session and in one of our own, as it does in one tflite-micro interpreter."""
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    path = shared_network("trained_lstm_int8")
    oracle = runtime.Interpreter.from_file(str(path), arena_size=1 << 20)
    fresh = [expected[0] for _, expected in vectors(path)]
    went_on = []
    with device.load(path) as network, network.session() as session:
        for inputs, _ in vectors(path):
            oracle.set_input(inputs[0], 0)
            oracle.invoke()
            went_on.append(oracle.get_output(0))
            np.testing.assert_array_equal(session(*inputs), went_on[-1])
            np.testing.assert_array_equal(network(*inputs), went_on[-1])
    assert not np.array_equal(went_on, fresh)


def test_every_digit(device: npubox.Device) -> None:
    with np.load(DIGITS / "test.npz") as stored, device.load(DIGITS / "digits.tflite") as network:
        images, expected = stored["inputs"], stored["expected"]
        made = [np.asarray(network(image[None])) for image in images]
        np.testing.assert_array_equal(np.concatenate(made), expected)


def test_fast_scratch_in_memory() -> None:
    """A device without SRAM gets a buffer object as region 2 instead."""
    with npubox.open("imx93") as small:
        small._backend.info = replace(small.npu, sram_size=0)
        with np.load(DIGITS / "test.npz") as stored, small.load(DIGITS / "digits.tflite") as network:
            np.testing.assert_array_equal(network(stored["inputs"][:1]), stored["expected"][:1])


def test_digits_from_many_threads(device: npubox.Device) -> None:
    with np.load(DIGITS / "test.npz") as stored, device.load(DIGITS / "digits.tflite") as network:
        images, expected = stored["inputs"][:64], stored["expected"][:64]
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda image: np.asarray(network(image[None])), images))
        np.testing.assert_array_equal(np.concatenate(made), expected)


def test_all_in_flight_at_once(device: npubox.Device) -> None:
    with np.load(DIGITS / "test.npz") as stored, device.load(DIGITS / "digits.tflite") as network:
        inferences = [network.submit(image[None]) for image in stored["inputs"][:40]]
        made = [inference.outputs[0] for inference in inferences]
        np.testing.assert_array_equal(np.concatenate(made), stored["expected"][:40])


def test_cpu_operators_between(device: npubox.Device) -> None:
    """QUANTIZE and DEQUANTIZE on the CPU around a FULLY_CONNECTED on the NPU."""
    from npubox.fallback.verify import reference_outputs

    real = np.linspace(-3, 3, 8, dtype=np.float32)[None]
    with device.load(float_edges()) as network:
        assert network.placement.npu == ("FULLY_CONNECTED",)
        (expected,) = reference_outputs(float_edges(), [real]).outputs
        np.testing.assert_array_equal(network(real), expected)


def test_several_outputs_are_a_tuple(device: npubox.Device) -> None:
    real = np.linspace(-3, 3, 8, dtype=np.float32)[None]
    with device.load(float_edges(both=True)) as network:
        made = network(real)
        assert isinstance(made, tuple)
        assert [(str(info.dtype), info.shape) for info in network.outputs] == [
            (str(array.dtype), array.shape) for array in made
        ]
        np.testing.assert_array_equal(network.outputs[1].dequantise(made[1]), made[0])


def test_unknown_device_names_the_known() -> None:
    with pytest.raises(npubox.DeviceError, match="imx93"):
        npubox.open("ethos-u99")
