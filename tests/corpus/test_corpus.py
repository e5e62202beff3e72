# SPDX-License-Identifier: Apache-2.0
"""Every small network on virtual NPUs, each output of each vector equal to its oracle bit for bit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import npubox
from npubox.fallback.oracles import LITERT_OPTIMISED
from npubox.formats.tflite import read_network
from tests.corpus import oracles
from tests.corpus.cases import (
    LEGACY_ON_CPU,
    LEGACY_WITHOUT_SCALES,
    MIXED,
    NAMES,
    NEGATIVE_STRIDES,
    OPTIMISED_KERNELS,
    OTHER_ORACLES,
    REFUSED,
    SUBSET,
    WHOLE,
    Array,
    Case,
    content_of,
    load,
)
from tests.corpus.vela import LEGACY, compiled
from tests.plain.network import PlainNetwork

DEVICES = ("ethos-u55-128", "ethos-u65-256", "ethos-u65-512")
LEGACY_DEVICES = ("ethos-u55-128", "ethos-u65-256")
OTHER_DEVICES = ("ethos-u55-32", "ethos-u55-64", "ethos-u55-256")
MAINLINE = ("ethos-u65-256", "ethos-u65-512")  # presets that check streams as mainline's driver does
MEMORY_MODES = (
    ("ethos-u55-128", "Ethos_U55_High_End_Embedded", "Sram_Only"),
    ("ethos-u55-128", "Ethos_U55_High_End_Embedded", "Shared_Sram"),
    ("ethos-u65-256", "Ethos_U65_Embedded", "Sram_Only"),
    ("ethos-u65-256", "Ethos_U65_Embedded", "Shared_Sram"),
    ("ethos-u65-256", "Ethos_U65_Client_Server", "Dedicated_Sram"),
    ("ethos-u65-512", "Ethos_U65_High_End", "Dedicated_Sram_512KB"),
)
IN_EVERY_MODE = ("cascade_int8", "classifier_uint8", "conv_3x3_int16", "inception_int8", "softmax_rows_int8")
LEAST = 120  # small networks that must run wholly on the NPU


class Devices(dict[tuple[str, str | None], npubox.Device]):
    """By name and policy, where None is the preset's own; opened when first used."""

    def __missing__(self, key: tuple[str, str | None]) -> npubox.Device:
        self[key] = npubox.open(key[0], policy=key[1])
        return self[key]


@pytest.fixture(scope="module")
def devices() -> Iterator[Devices]:
    opened = Devices()
    yield opened
    for device in opened.values():
        device.close()


def outputs(network: npubox.Network, *inputs: Array) -> list[Array]:
    with network.submit(*inputs) as inference:
        return list(inference.outputs)


def expected(case: Case, file: bytes, k: int) -> list[Array]:
    if case.oracle == oracles.PLAIN:
        return PlainNetwork(read_network(file), seed=k)(*case.vector(k))
    return [tensor[k] for tensor in case.outputs]


def check(device: npubox.Device, case: Case, *options: str) -> None:
    file = compiled(case.content, device.accelerator, *options)
    with device.load(file) as network:
        assert network.placement.cpu == ()
        for k in range(case.vectors):
            pairs = zip(outputs(network, *case.vector(k)), expected(case, file, k), strict=True)
            for i, (ours, theirs) in enumerate(pairs):
                if LEGACY in options:
                    ours = ours.reshape(theirs.shape)  # the legacy core drops or adds dimensions of 1
                np.testing.assert_array_equal(
                    ours, theirs, f"output {i} of vector {k}, by {case.oracle}", strict=True
                )


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("accelerator", DEVICES)
def test_equals_its_oracle(devices: Devices, accelerator: str, name: str) -> None:
    check(devices[accelerator, "hardware" if name in NEGATIVE_STRIDES else None], load(name))


@pytest.mark.parametrize("name", NEGATIVE_STRIDES)
@pytest.mark.parametrize("accelerator", MAINLINE)
def test_mainline_takes_no_negative_strides(devices: Devices, accelerator: str, name: str) -> None:
    case = load(name)
    file = compiled(case.content, accelerator)
    with devices[accelerator, None].load(file) as network, pytest.raises(npubox.ModelError, match="refuses"):
        outputs(network, *case.vector(0))


@pytest.mark.parametrize("name", SUBSET)
@pytest.mark.parametrize("accelerator", OTHER_DEVICES)
def test_other_configurations(devices: Devices, accelerator: str, name: str) -> None:
    check(devices[accelerator, None], load(name))


@pytest.mark.parametrize("name", [name for name in SUBSET if name not in LEGACY_ON_CPU])
@pytest.mark.parametrize("accelerator", LEGACY_DEVICES)
def test_legacy_streams(devices: Devices, accelerator: str, name: str) -> None:
    check(devices[accelerator, "hardware" if name in LEGACY_WITHOUT_SCALES else None], load(name), LEGACY)


@pytest.mark.parametrize("name", LEGACY_WITHOUT_SCALES)
def test_mainline_takes_no_pool_without_scales(devices: Devices, name: str) -> None:
    with pytest.raises(npubox.ModelError, match="driver refuses"):
        devices["ethos-u65-256", None].load(compiled(content_of(name), "ethos-u65-256", LEGACY))


@pytest.mark.parametrize("name", IN_EVERY_MODE)
@pytest.mark.parametrize(("accelerator", "system", "mode"), MEMORY_MODES)
def test_memory_modes(devices: Devices, accelerator: str, system: str, mode: str, name: str) -> None:
    options = ("--config", "Arm/vela.ini", "--system-config", system, "--memory-mode", mode)
    check(devices[accelerator, None], load(name), *options)


@pytest.mark.parametrize("name", SUBSET)
def test_nothing_depends_on_what_memory_held(devices: Devices, name: str) -> None:
    """An arena full of noise; SRAM and tables hold what the networks before left."""
    device, case = devices["ethos-u65-256", None], load(name)
    noise = np.random.default_rng(5)
    with (
        device.load(compiled(case.content, device.accelerator)) as network,
        device.buffer(network.arena_size) as arena,
    ):
        for k in range(case.vectors):
            arena.data[:] = noise.bytes(arena.size)
            with network.submit(*case.vector(k), arena=arena) as inference:
                for ours, theirs in zip(inference.outputs, case.outputs, strict=True):
                    np.testing.assert_array_equal(ours, theirs[k], strict=True)


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize("accelerator", DEVICES)
def test_with_cpu_operators(devices: Devices, accelerator: str, name: str) -> None:
    device, case = devices[accelerator, None], load(name)
    with device.load(case.content) as network:
        assert network.placement.cpu == MIXED[name]
        operators = [operator.name for operator in read_network(case.content).operators]
        assert len(network.placement.npu) == len(operators) - len(MIXED[name])
        for k in range(case.vectors):
            pairs = zip(outputs(network, *case.vector(k)), case.outputs, strict=True)
            for ours, theirs in pairs:
                np.testing.assert_array_equal(ours, theirs[k], strict=True)
        optimised = tuple((operator, LITERT_OPTIMISED) for operator in OPTIMISED_KERNELS.get(name, ()))
        assert network.stand_in_kernels == optimised


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("accelerator", DEVICES)
def test_streams_that_are_not_the_network(devices: Devices, accelerator: str, name: str) -> None:
    device, case = devices[accelerator, None], load(name)
    with device.load(compiled(case.content, accelerator)) as network:
        assert network.placement.cpu == ()
        with pytest.raises(npubox.JobFailed, match=r"OP_POOL .*window that holds padding alone"):
            outputs(network, *case.vector(0))


def test_enough_networks() -> None:
    assert len(WHOLE) >= LEAST
    assert {*MIXED, *OPTIMISED_KERNELS, *REFUSED, *NEGATIVE_STRIDES, *OTHER_ORACLES, *SUBSET} <= set(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if oracles.PLAIN not in OTHER_ORACLES.get(name, ())])
def test_stored_outputs_are_the_oracles(name: str) -> None:
    case = load(name)
    assert case.oracle == OTHER_ORACLES.get(name, (oracles.TFLITE_MICRO, ""))[0]
    if case.oracle == oracles.TFLITE_MICRO:
        pytest.importorskip("tflite_micro", reason="tflite-micro has wheels for x86-64 only")
    answers = oracles.outputs(case.oracle, case.content, [case.vector(k) for k in range(case.vectors)])
    for k, answer in enumerate(answers):
        for ours, theirs in zip(case.outputs, answer, strict=True):
            np.testing.assert_array_equal(ours[k], theirs, f"vector {k}", strict=True)
