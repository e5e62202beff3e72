# SPDX-License-Identifier: Apache-2.0
"""The oracle gives the stored outputs, says who it was, and survives kernels that abort."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

from npubox.errors import ModelError
from npubox.fallback import verify
from npubox.fallback.verify import LITERT_REF, TFLITE_MICRO, reference_outputs
from npubox.formats.tflite import read_network
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
        outputs, oracle = reference_outputs(network.content, inputs)
        assert oracle == TFLITE_MICRO
        assert len(outputs) == len(network.outputs)
        for index, output in enumerate(outputs):
            np.testing.assert_array_equal(output, stored[f"output{index}_{vector}"])


def test_litert_stands_in_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_available", lambda: [LITERT_REF])
    path = shared_network("coral_tf2_mobilenet_v2_1.0_224_ptq")
    stored = np.load(path.with_suffix(".npz"))
    (output,), oracle = reference_outputs(path.read_bytes(), [stored["input0_0"]])
    assert (oracle, str(stored["oracle"])) == (LITERT_REF, LITERT_REF)
    np.testing.assert_array_equal(output, stored["output0_0"])


def test_when_none_runs_the_network_each_says_why() -> None:
    with pytest.raises(
        ModelError, match=r"no reference kernels run this network: .*LiteRT BUILTIN_REF said: "
    ):
        reference_outputs(fully_connected(), [np.zeros((1, 9), np.int8)])


def test_an_abort_is_survived_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_available", lambda: [LITERT_REF])
    abort = "import os; os.abort()"
    monkeypatch.setattr(verify, "_command", lambda *_: [sys.executable, "-c", abort])
    with pytest.raises(ModelError, match="LiteRT BUILTIN_REF died of signal 6"):
        reference_outputs(fully_connected(), [np.zeros((1, 8), np.int8)])
