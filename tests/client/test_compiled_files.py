# SPDX-License-Identifier: Apache-2.0
"""Everything a compiled network may come as: memory modes, generators, payloads, raw output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import npubox
from npubox.client.regions import used_regions
from npubox.compiler.vela import compile_network
from npubox.formats.tflite import read_network
from tests.networks import compiled_by_vela, raw_file, shared_network

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits" / "digits.tflite"
CORPUS = ROOT / "tests" / "corpus" / "networks"
SEPARATE = ("--cop-format", "COP2", "--separate-io-regions")
with np.load(DIGITS.parent / "test.npz") as stored:
    IMAGES, SCORES = stored["inputs"][:4], stored["expected"][:4]


def check(network: npubox.Network) -> None:
    """The digits network recognises the digits, from fresh memory and from memory that was used."""
    for image, scores in zip(IMAGES, SCORES, strict=True):
        ours = np.asarray(network(image.reshape(network.inputs[0].shape)))
        np.testing.assert_array_equal(ours.reshape(-1), scores)


@pytest.mark.parametrize("legacy", [False, True], ids=["Regor", "legacy"])
@pytest.mark.parametrize(
    ("name", "mode", "optimise", "regions"),
    [
        ("imx93", "Sram_Only", None, {0, 1}),
        ("imx93", "Shared_Sram", "Size", {0, 1}),
        ("imx93", "Dedicated_Sram", "Performance", {0, 1, 2}),
        ("ethos-u65-512", "Dedicated_Sram_256KB", None, {0, 1, 2}),
        ("ethos-u55-32", "Sram_Only", "Size", {0, 1}),
        ("corstone-300", "Shared_Sram", None, {0, 1}),
    ],
)
def test_memory_modes(name: str, mode: str, optimise: str | None, regions: set[int], legacy: bool) -> None:
    options = npubox.CompileOptions(memory_mode=mode, optimise=optimise, legacy=legacy)
    with npubox.open(name) as device, device.load(DIGITS, options) as network:
        assert network.generator == ("legacy" if legacy else "Regor")
        check(network)
        (operator,) = read_network(device.compile(DIGITS, options).content).operators
        assert operator.npu is not None
        assert used_regions(operator.npu.stream.words) == regions


def test_options_that_cannot_be() -> None:
    options = npubox.CompileOptions
    with npubox.open("imx93") as device:
        for bad, message in (
            (options(memory_mode="Flash_Only"), "Flash_Only"),
            (options(system_config="Ethos_U99"), "Ethos_U99"),
            (options(optimise="Fast"), "Performance or Size"),
        ):
            with pytest.raises(npubox.ModelError, match=message):
                device.load(DIGITS, bad)
        compiled = compiled_by_vela(DIGITS.read_bytes(), "ethos-u65-256").content
        with pytest.raises(npubox.ModelError, match="already is compiled"):
            device.load(compiled, options(legacy=True))


@pytest.mark.parametrize("options", [(), ("--debug-force-legacy-core",)], ids=["Regor", "legacy"])
@pytest.mark.parametrize("accelerator", ["ethos-u55-128", "ethos-u65-256"])
def test_raw_output(accelerator: str, options: tuple[str, ...], tmp_path: Path) -> None:
    path = raw_file(tmp_path, DIGITS.read_bytes(), accelerator, *options)
    with npubox.open(accelerator) as device:
        for source in (path, path.read_bytes()):
            with device.load(source, signed=True) as network:
                assert network.generator == ("legacy" if options else "Regor")
                check(network)


def test_raw_output_for_another_npu(tmp_path: Path) -> None:
    path = raw_file(tmp_path, DIGITS.read_bytes(), "ethos-u55-256")
    with (
        npubox.open("imx93") as device,
        pytest.raises(npubox.ModelError, match="compiled for ethos-u55-256"),
    ):
        device.load(path, signed=True)


@pytest.mark.parametrize("options", [("--cop-format", "COP2"), SEPARATE], ids=["COP2", "separate"])
@pytest.mark.parametrize("name", ["imx93", "ethos-u55-128"])
def test_cop2(name: str, options: tuple[str, ...]) -> None:
    with npubox.open(name) as device:
        content = compile_network(DIGITS, device.accelerator, extra=options, cache=False).content
        with device.load(content) as network:
            check(network)
            arena = device.buffer(network.arena_size)
            with arena, network.submit(IMAGES[:1], arena=arena) as inference:
                np.testing.assert_array_equal(inference.outputs[0], SCORES[:1])


@pytest.mark.parametrize("name", ["concat_three_w_int8", "add_channels_int8"])
def test_several_inputs_in_a_region_of_their_own(name: str) -> None:
    path = CORPUS / f"{name}.tflite"
    with np.load(path.with_suffix(".npz")) as vectors, npubox.open("imx93") as device:
        content = compile_network(path, device.accelerator, extra=SEPARATE, cache=False).content
        with device.load(content) as network:
            inputs = [vectors[f"input{i}"][0] for i in range(len(network.inputs))]
            np.testing.assert_array_equal(network(*inputs), vectors["output0"][0])


@pytest.mark.shared
def test_state_in_a_region_of_inputs_is_refused() -> None:
    path = shared_network("trained_lstm_int8")
    content = compiled_by_vela(path.read_bytes(), "ethos-u65-256", *SEPARATE).content
    with npubox.open("imx93") as device, pytest.raises(npubox.ModelError, match="--separate-io-regions"):
        device.load(content)


def test_a_refusal_says_what_would_run_it() -> None:
    """MIRROR_PAD has negative strides: more than 2^40 bytes of a region by mainline's reckoning."""
    path = CORPUS / "mirror_pad_int8.tflite"
    with np.load(path.with_suffix(".npz")) as vectors:
        image, expected = vectors["input0"][0], vectors["output0"][0]
    with npubox.open("imx93") as device, device.load(path) as network:
        with pytest.raises(npubox.ModelError, match=r"EOVERFLOW, the stream uses \d+ bytes") as caught:
            network(image)
        assert 'open imx93 with the policy "hardware"' in str(caught.value)
    with npubox.open("imx93", policy="hardware") as device, device.load(path) as network:
        np.testing.assert_array_equal(network(image), expected)
