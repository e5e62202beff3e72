# SPDX-License-Identifier: Apache-2.0
"""The oracle gives the stored outputs, says who it was, and survives kernels that abort."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from dataclasses import replace

import numpy as np
import pytest

from npubox.errors import ModelError
from npubox.fallback import verify
from npubox.fallback.oracles import INEXACT, LITERT_OPTIMISED, LITERT_REF, TFLITE_MICRO, choices
from npubox.fallback.verify import reference_outputs
from npubox.formats.tflite import read_network
from tests.corpus import oracles
from tests.corpus.cases import DIRECTORY as CORPUS
from tests.corpus.cases import NAMES, load
from tests.networks import SHARED_NAMES, fully_connected, shared_network

MICRO = importlib.util.find_spec("tflite_micro") is not None


@pytest.mark.skipif(not MICRO, reason="tflite-micro has wheels for x86-64 only")
@pytest.mark.parametrize("name", SHARED_NAMES)
def test_equals_the_stored_outputs(name: str) -> None:
    path = shared_network(name)
    stored = np.load(path.with_suffix(".npz"))
    network = read_network(path)
    for vector in (0, 3):
        inputs = [stored[f"input{i}_{vector}"] for i in range(len(network.inputs))]
        reference = reference_outputs(network.content, inputs)
        assert (reference.oracle, reference.passed_over, reference.inexact) == (TFLITE_MICRO, (), ())
        assert len(reference.outputs) == len(network.outputs)
        for index, output in enumerate(reference.outputs):
            np.testing.assert_array_equal(output, stored[f"output{index}_{vector}"])


def test_litert_stands_in_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "installed", lambda oracle: oracle == LITERT_REF)
    path = shared_network("coral_tf2_mobilenet_v2_1.0_224_ptq")
    stored = np.load(path.with_suffix(".npz"))
    reference = reference_outputs(path.read_bytes(), [stored["input0_0"]])
    (output,) = reference.outputs
    assert (reference.oracle, str(stored["oracle"])) == (LITERT_REF, LITERT_REF)
    assert reference.passed_over == ("tflite-micro is not installed",)
    np.testing.assert_array_equal(output, stored["output0_0"])


def test_when_none_runs_the_network_each_says_why() -> None:
    with pytest.raises(
        ModelError, match=r"no reference kernels run this network: .*LiteRT BUILTIN_REF said: "
    ):
        reference_outputs(fully_connected(), [np.zeros((1, 9), np.int8)])


def test_an_abort_is_survived_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "installed", lambda oracle: oracle == LITERT_REF)
    abort = "import os; os.abort()"
    monkeypatch.setattr(verify, "_command", lambda *_: [sys.executable, "-c", abort])
    with pytest.raises(ModelError, match="LiteRT BUILTIN_REF died of signal 6"):
        reference_outputs(fully_connected(), [np.zeros((1, 8), np.int8)])


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("conv_3x3_int8", TFLITE_MICRO),
        ("dense_int8", TFLITE_MICRO),
        ("mul_int8", TFLITE_MICRO),
        ("mul_int16", LITERT_REF),
        ("softmax_int16", LITERT_REF),
        ("rsqrt_int16", LITERT_REF),
        ("relu6_int8", LITERT_REF),
        ("sum_c_int8", LITERT_OPTIMISED),
        ("sum_c_int16", TFLITE_MICRO),
    ],
)
def test_the_exact_oracle_is_asked_first(name: str, oracle: str) -> None:
    first = choices(read_network(CORPUS / f"{name}.tflite"))[0]
    assert (first.oracle, first.inexact) == (oracle, ())


def test_relu6_with_equal_scales_is_no_reason() -> None:
    """Clamping alone: only the rescaling RELU6 is wrong."""
    network = read_network(CORPUS / "relu6_int8.tflite")
    (operator,) = network.operators
    same = network.tensors[operator.inputs[0]].quantization
    tensors = tuple(replace(tensor, quantization=same) for tensor in network.tensors)
    assert choices(replace(network, tensors=tensors))[0].oracle == TFLITE_MICRO


def test_where_none_is_exact_it_says_of_what() -> None:
    """A cell of an int16 GRU: dense layers and products."""
    ranked = choices(read_network(CORPUS / "gru_int16.tflite"))
    assert [choice.inexact for choice in ranked] == [("int16 MUL",), *[("int16 FULLY_CONNECTED",)] * 2]


def test_the_first_choice_gives_the_stored_outputs() -> None:
    """Where it is another oracle than the one that tests/corpus has them from and compares the NPU with."""
    compared = 0
    for name in NAMES:
        first = choices(read_network(CORPUS / f"{name}.tflite"))[0]
        case = load(name)
        if first.inexact or case.oracle in (first.oracle, oracles.PLAIN):
            continue
        with contextlib.suppress(RuntimeError):  # it does not run the network: another is asked
            (outputs,) = oracles.outputs(first.oracle, case.content, [case.vector(0)])
            compared += 1
            for ours, theirs in zip(outputs, case.outputs, strict=True):
                np.testing.assert_array_equal(ours, theirs[0], f"{name}, {first.oracle}")
    assert compared > 5


def test_every_oracle_runs() -> None:
    assert set(verify.ORACLES) == set(INEXACT)
