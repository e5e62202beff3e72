# SPDX-License-Identifier: Apache-2.0
"""CPU operators one by one give what LiteRT gives for the whole network."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from npubox.errors import InputError, ModelError
from npubox.fallback.kernels import Kernels
from npubox.formats.network import Network
from npubox.formats.tflite import read_network
from tests.networks import compiled_by_vela, fully_connected, shared_network

Array = npt.NDArray[Any]
CORPUS = Path(__file__).parents[1] / "corpus" / "networks"
WHOLE = ["hello_world_int8", "kws_dscnn_int8", "ic_resnet8_int8", "coral_tf2_mobilenet_v2_1.0_224_ptq"]


def whole_network(content: bytes, array: Array) -> Interpreter:
    """LiteRT's interpreter after one inference, every tensor kept."""
    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], array)
    interpreter.invoke()
    return interpreter


def noise(network: Network, seed: int = 1) -> Array:
    tensor = network.tensors[network.inputs[0]]
    limits = np.iinfo(tensor.dtype)
    return np.random.default_rng(seed).integers(limits.min, limits.max + 1, tensor.shape).astype(tensor.dtype)


@pytest.mark.parametrize("name", WHOLE)
def test_every_operator_alone_equals_the_whole_network(name: str) -> None:
    network = read_network(shared_network(name))
    array = noise(network)
    expected = whole_network(network.content, array)
    arrays = {network.inputs[0]: array}
    kernels = Kernels(network)
    for operator in network.operators:
        given = {index: arrays[index] for index in operator.inputs if index in arrays}
        for index, result in kernels.run(operator, given).items():
            np.testing.assert_array_equal(result, expected.get_tensor(index), operator.name)
            assert result.dtype == network.tensors[index].dtype
            arrays[index] = result


def test_operators_between_npu_operators_of_a_compiled_network() -> None:
    source = read_network(shared_network("ic_resnet8_int8"))
    compiled = compiled_by_vela(source.content, "ethos-u65-256", "--ignore-ops", "AVERAGE_POOL_2D,SOFTMAX")
    expected = whole_network(source.content, noise(source))
    by_name = {tensor.name: tensor.index for tensor in source.tensors}
    kernels = Kernels(compiled)
    left = [operator for operator in compiled.operators if operator.npu is None]
    assert [operator.name for operator in left] == ["AVERAGE_POOL_2D", "SOFTMAX"]
    for operator in left:
        given = {i: expected.get_tensor(by_name[compiled.tensors[i].name]) for i in operator.inputs}
        (result,) = kernels.run(operator, given).values()
        output = compiled.tensors[operator.outputs[0]]
        np.testing.assert_array_equal(result, expected.get_tensor(by_name[output.name]))


def test_state_comes_in_and_goes_out() -> None:
    path = shared_network("trained_lstm_int8")
    network = read_network(path)
    lstm = network.operators[0]
    vectors = np.load(path.with_suffix(".npz"))
    shape = network.tensors[network.inputs[0]].shape
    state = {
        t.index: np.full(t.shape, t.quantization.zero_points[0] if t.quantization else 0, t.dtype)
        for t in network.variables
    }
    kernels = Kernels(network)
    first = kernels.run(lstm, {network.inputs[0]: vectors["input0_0"].reshape(shape), **state})
    again = kernels.run(lstm, {network.inputs[0]: vectors["input0_0"].reshape(shape), **state})
    changed = {index: first[index] for index in state}
    later = kernels.run(lstm, {network.inputs[0]: vectors["input0_0"].reshape(shape), **changed})
    output = lstm.outputs[0]
    assert first.keys() == {output, *state}
    np.testing.assert_array_equal(first[output], again[output])
    assert any((first[index] != state[index]).any() for index in state)
    assert (later[output] != first[output]).any()
    arrays = dict(first)
    for operator in network.operators[1:]:
        arrays |= kernels.run(operator, {i: arrays[i] for i in operator.inputs if i in arrays})
    np.testing.assert_array_equal(arrays[network.outputs[0]], vectors["output0_0"])


def test_threads_do_not_mix_their_arrays() -> None:
    network = read_network(fully_connected())
    kernels = Kernels(network)
    (operator,) = network.operators
    inputs = [noise(network, seed) for seed in range(32)]
    expected = [kernels.run(operator, {0: array})[3] for array in inputs]
    assert len({array.tobytes() for array in expected}) > 16
    failures: list[int] = []

    def work(first: int) -> None:
        for at in range(first, len(inputs), 2):
            if (kernels.run(operator, {0: inputs[at]})[3] != expected[at]).any():
                failures.append(at)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_wrong_arrays_are_refused_by_name() -> None:
    network = read_network(fully_connected())
    kernels = Kernels(network)
    (operator,) = network.operators
    with pytest.raises(InputError, match=r"CPU operator 0 \(FULLY_CONNECTED\) lacks its input x"):
        kernels.run(operator, {})
    with pytest.raises(InputError, match=r"takes x as int8 \[1, 8\], not float64 \[8\]"):
        kernels.run(operator, {0: np.zeros(8)})


def test_an_operator_without_kernel_is_refused() -> None:
    compiled = compiled_by_vela(fully_connected(), "ethos-u65-256")
    (operator,) = compiled.operators
    arrays = {
        i: np.zeros(compiled.tensors[i].shape, compiled.tensors[i].dtype)
        for i in operator.inputs
        if compiled.tensors[i].data is None
    }
    with pytest.raises(ModelError, match=r"LiteRT has no kernel for CPU operator 0 \(ethos-u\)"):
        Kernels(compiled).run(operator, arrays)


def test_litert_is_imported_at_the_first_run_only() -> None:
    rooms = "npubox.fallback.kernels, npubox.fallback.verify"
    code = f"import sys, {rooms}; sys.exit('ai_edge_litert' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_optimised_kernels_where_the_reference_has_none_are_named() -> None:
    content = (CORPUS / "mixed_depth_to_space_int8.tflite").read_bytes()
    network = read_network(content)
    conv, depth_to_space = network.operators[:2]
    kernels = Kernels(network)
    between = kernels.run(conv, {network.inputs[0]: noise(network)})
    assert not kernels.optimised
    (moved,) = kernels.run(depth_to_space, between).values()
    assert kernels.optimised == (depth_to_space.name,) == ("DEPTH_TO_SPACE",)
    (stored,) = between.values()
    n, height, width, channels = stored.shape
    block = moved.shape[1] // height
    blocks = stored.reshape(n, height, width, block, block, channels // block**2)
    np.testing.assert_array_equal(moved, blocks.transpose(0, 1, 3, 2, 4, 5).reshape(moved.shape))
