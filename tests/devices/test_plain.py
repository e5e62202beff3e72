# SPDX-License-Identifier: Apache-2.0
"""The plain interpreter against the networks' oracles: what the virtual device is held against must hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ethosu import mlw_codec
from hypothesis import given, settings
from hypothesis import strategies as st

from npubox.hw.ethosu.commands import CMD1_CONTROL, Cmd0, Cmd1
from tests import plain
from tests.networks import SHARED_NAMES, compiled_by_vela, shared_network
from tests.plain.network import PlainNetwork
from tests.plain.weights import BadStream, decode
from tests.vectors import DIGITS, Vector, digits_vectors, shared_vectors

BIG = ("coral_tf2_mobilenet_v2_1.0_224_ptq",)  # seconds a vector: fewer of them, on one accelerator
SMALL = ("digits", *(name for name in SHARED_NAMES if name not in BIG))
ACCELERATORS = ("ethos-u65-256", "ethos-u55-128", "ethos-u65-512")
LEGACY = "--debug-force-legacy-core"
GENERATORS = {"regor": (), "legacy": (LEGACY,)}
MEMORY_MODES = {
    "ethos-u55-128": ("Ethos_U55_High_End_Embedded", ("Sram_Only", "Shared_Sram")),
    "ethos-u65-256": ("Ethos_U65_Embedded", ("Sram_Only", "Shared_Sram")),
    "ethos-u65-512": ("Ethos_U65_High_End", ("Dedicated_Sram",)),
}
U65_256 = 0x10003008


def source(name: str) -> Path:
    return DIGITS / "digits.tflite" if name == "digits" else shared_network(name)


def vectors(name: str) -> list[Vector]:
    return digits_vectors(20) if name == "digits" else shared_vectors(name)


def check(name: str, accelerator: str, options: tuple[str, ...], some: slice = slice(None)) -> None:
    network = PlainNetwork(compiled_by_vela(source(name).read_bytes(), accelerator, *options))
    for vector in vectors(name)[some]:
        network.reset()
        for got, expected in zip(network(*vector.inputs), vector.outputs, strict=True):
            np.testing.assert_array_equal(got, expected, strict=True)


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("accelerator", ACCELERATORS)
@pytest.mark.parametrize("name", SMALL)
def test_equals_the_oracle(name: str, accelerator: str, generator: str) -> None:
    check(name, accelerator, GENERATORS[generator])


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("name", BIG)
def test_equals_the_oracle_on_big_networks(name: str, generator: str) -> None:
    check(name, "ethos-u65-256", GENERATORS[generator], slice(2, 4))


@pytest.mark.parametrize(
    ("accelerator", "system", "mode"),
    [(accelerator, system, mode) for accelerator, (system, modes) in MEMORY_MODES.items() for mode in modes],
)
def test_equals_the_oracle_in_every_memory_mode(accelerator: str, system: str, mode: str) -> None:
    options = ("--config", "Arm/vela.ini", "--system-config", system, "--memory-mode", mode)
    check("kws_dscnn_int8", accelerator, options)


weight_lists = st.one_of(
    st.lists(st.integers(-255, 255), min_size=1, max_size=400),
    st.lists(st.sampled_from([0, 0, 0, 0, 3, -3, 127]), min_size=1, max_size=400),
    st.lists(st.sampled_from([-17, 17]), min_size=1, max_size=400),
)


@settings(max_examples=200, deadline=None)
@given(weight_lists)
def test_weight_decoder_equals_velas(weights: list[int]) -> None:
    stream = bytes(mlw_codec.encode(weights))
    expected = mlw_codec.decode(bytearray(stream))
    assert expected[: len(weights)] == weights
    assert decode(stream, len(expected)).tolist() == expected


def test_weight_decoder_refuses_a_truncated_stream() -> None:
    weights = list(range(-200, 200))
    with pytest.raises(BadStream, match="ends inside a slice"):
        decode(bytes(mlw_codec.encode(weights))[:40], len(weights))


def test_weight_decoder_refuses_a_wrong_number_of_weights() -> None:
    stream = bytes(mlw_codec.encode([5] * 64))
    with pytest.raises(BadStream, match="where the operation needs 65"):
        decode(stream, 65)


def words(*commands: tuple[int, int]) -> bytes:
    """cmd0 words of (code, parameter), or cmd1 words of (Cmd1, payload)."""
    stream = b""
    for code, value in commands:
        if isinstance(code, Cmd1):
            stream += (code | CMD1_CONTROL).to_bytes(4, "little") + value.to_bytes(4, "little")
        else:
            stream += (code | value << 16).to_bytes(4, "little")
    return stream


COPY = (
    (Cmd0.DMA0_SRC_REGION, 0),
    (Cmd0.DMA0_DST_REGION, 1),
    (Cmd1.DMA0_SRC, 4),
    (Cmd1.DMA0_DST, 8),
    (Cmd1.DMA0_LEN, 8),
    (Cmd0.OP_DMA_START, 0),
    (Cmd0.OP_STOP, 0xFFFF),
)


def test_dma_copies_in_place() -> None:
    target = bytearray(16)
    plain.run(words(*COPY), {0: bytearray(range(16)), 1: target}, U65_256)
    assert target == bytes(8) + bytes(range(4, 12))


def test_dma_outside_a_region_faults() -> None:
    with pytest.raises(plain.Fault) as caught:
        plain.run(words(*COPY), {0: bytearray(16), 1: bytearray(15)}, U65_256)
    assert (caught.value.region, caught.value.address) == (1, 8)


@pytest.mark.parametrize(
    ("stream", "name", "offset"),
    [
        (words((Cmd0.OP_DMA_WAIT, 0)), "end of stream", 4),
        (words((Cmd0.OP_DMA_WAIT, 0), (7, 0)), "OP_RESIZE", 4),
        (words((99, 0)), "command 99", 0),
        (words((Cmd0.OP_CONV, 0)), "OP_CONV", 0),
        (words((Cmd0.DMA0_SRC_REGION, 1 << 9), (Cmd0.DMA0_DST_REGION, 0), (16, 0)), "OP_DMA_START", 8),
    ],
)
def test_refuses_by_name(stream: bytes, name: str, offset: int) -> None:
    with pytest.raises(plain.Refused) as caught:
        plain.run(stream, {0: bytearray(16)}, U65_256)
    assert (caught.value.name, caught.value.offset) == (name, offset)
