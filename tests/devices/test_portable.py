# SPDX-License-Identifier: Apache-2.0
"""The vector code for CPUs without AVX512-VNNI gives the oracles' bits: `make test-portable`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import npubox
from npubox.devices import simd
from tests.corpus.cases import MIXED, SUBSET, load
from tests.corpus.vela import compiled
from tests.networks import shared_network
from tests.vectors import DIGITS, Vector, digits_vectors, shared_vectors

pytestmark = pytest.mark.skipif(
    simd.VNNI,
    reason="this CPU has AVX512-VNNI: `make test-portable` does without, and compiles the kernels anew",
)
CORPUS = tuple(name for name in SUBSET if name not in MIXED)[:30]
SHARED = ("kws_dscnn_int8", "ic_resnet8_int8")


@pytest.fixture(scope="module")
def device() -> Iterator[npubox.Device]:
    with npubox.open("ethos-u65-256") as opened:
        yield opened


def check(network: npubox.Network, vectors: list[Vector]) -> None:
    assert network.placement.cpu == ()
    for vector in vectors:
        with network.submit(*vector.inputs) as inference:
            for ours, theirs in zip(inference.outputs, vector.outputs, strict=True):
                np.testing.assert_array_equal(ours, theirs, strict=True)


def test_digits(device: npubox.Device) -> None:
    with device.load(DIGITS / "digits.tflite") as network:
        check(network, digits_vectors(20))


@pytest.mark.shared
@pytest.mark.parametrize("name", SHARED)
def test_shared_networks(device: npubox.Device, name: str) -> None:
    with device.load(shared_network(name)) as network:
        check(network, shared_vectors(name))


@pytest.mark.parametrize("name", CORPUS)
def test_corpus(device: npubox.Device, name: str) -> None:
    case = load(name)
    with device.load(compiled(case.content, device.accelerator)) as network:
        check(
            network,
            [Vector(case.vector(k), [tensor[k] for tensor in case.outputs]) for k in range(case.vectors)],
        )
