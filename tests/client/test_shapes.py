# SPDX-License-Identifier: Apache-2.0
"""Inputs and outputs have the shapes of the network as it was before Vela, whichever axes of 1 that adds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import npubox
from npubox.compiler.vela import CompileOptions
from npubox.formats.tflite import read_network
from tests.client.graphs import float_edges
from tests.corpus.cases import DIRECTORY
from tests.networks import compiled_by_vela


@pytest.mark.parametrize("legacy", [False, True])
def test_arg_max(legacy: bool) -> None:
    """Vela's legacy core makes [1, 4, 4, 1] of its output."""
    with np.load(DIRECTORY / "argmax_c_int8.npz") as stored:
        given, expected = stored["input0"], stored["output0"]
    options = CompileOptions(legacy=legacy)
    with (
        npubox.open("ethos-u65-256") as device,
        device.load(DIRECTORY / "argmax_c_int8.tflite", options) as network,
    ):
        for vector, wanted in zip(given, expected, strict=True):
            np.testing.assert_array_equal(network(vector), wanted, strict=True)


def test_what_a_cpu_operator_reads_keeps_its_shape() -> None:
    """The int8 output is what DEQUANTIZE reads, the float one what it makes."""
    source = read_network(float_edges(both=True))
    compiled = compiled_by_vela(float_edges(both=True), "ethos-u65-256")
    tensors = tuple(
        replace(tensor, shape=(2, 2)) if tensor.index in source.outputs else tensor
        for tensor in source.tensors
    )
    edges = compiled.with_edges_of(replace(source, tensors=tensors))
    assert [edges.tensors[index].shape for index in edges.outputs] == [(2, 2), (1, 4)]
