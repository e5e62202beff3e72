# SPDX-License-Identifier: Apache-2.0
"""CPU operators one by one give what LiteRT gives for the whole network."""

from __future__ import annotations

import importlib.util
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
from npubox.fallback import kernels as kernels_module
from npubox.fallback.kernels import Kernels
from npubox.fallback.oracles import LITERT_OPTIMISED, LITERT_REF, TFLITE_MICRO
from npubox.fallback.verify import reference_outputs
from npubox.formats.network import Network
from npubox.formats.tflite import read_network
from tests.fallback.graphs import custom, depth_to_space_by_0, relu_of_other_shape, svdf, transpose_conv
from tests.networks import compiled_by_vela, fully_connected, shared_network

Array = npt.NDArray[Any]
CORPUS = Path(__file__).parents[1] / "corpus" / "networks"
MICRO = importlib.util.find_spec("tflite_micro") is not None
needs_micro = pytest.mark.skipif(not MICRO, reason="tflite-micro has wheels for x86-64 only")
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
    assert not kernels.stand_ins
    (moved,) = kernels.run(depth_to_space, between).values()
    assert kernels.stand_ins == ((depth_to_space.name, LITERT_OPTIMISED),)
    assert depth_to_space.name == "DEPTH_TO_SPACE"
    (stored,) = between.values()
    n, height, width, channels = stored.shape
    block = moved.shape[1] // height
    blocks = stored.reshape(n, height, width, block, block, channels // block**2)
    np.testing.assert_array_equal(moved, blocks.transpose(0, 1, 3, 2, 4, 5).reshape(moved.shape))


@pytest.mark.parametrize("shape_is_input", [False, True])
def test_transpose_conv_takes_its_shape_from_its_output(shape_is_input: bool) -> None:
    """As Vela and tflite-micro do, also where output_shape is an input of the network, whatever it says."""
    content = transpose_conv(shape_is_input=shape_is_input)
    network = read_network(content)
    (operator,) = network.operators
    x = network.inputs[-1]
    array = np.random.default_rng(1).integers(-32768, 32768, network.tensors[x].shape).astype(np.int16)
    nonsense = [np.full(4, 2**31 - 1, np.int32)] * shape_is_input
    (made,) = Kernels(network).run(operator, {x: array}).values()
    (expected,) = reference_outputs(content, [*nonsense, array]).outputs
    np.testing.assert_array_equal(made, expected, strict=True)
    assert len(np.unique(made)) > 50


@needs_micro
@pytest.mark.parametrize("state", [np.int8, np.int16])
def test_svdf_runs_on_tflite_micro_with_its_state(state: type[np.signedinteger[Any]]) -> None:
    from tflite_micro.python.tflite_micro import runtime

    network = read_network(svdf(state))
    (operator,), (variable,) = network.operators, network.variables
    whole = runtime.Interpreter.from_bytes(network.content, arena_size=1 << 20)
    start = variable.quantization.zero_points[0] if variable.quantization else 0
    arrays = {variable.index: np.full(variable.shape, start, state)}
    kernels = Kernels(network)
    made = []
    for step in range(8):
        arrays |= kernels.run(operator, arrays | {network.inputs[0]: noise(network, step)})
        whole.set_input(noise(network, step), 0)
        whole.invoke()
        np.testing.assert_array_equal(arrays[network.outputs[0]], whole.get_output(0), strict=True)
        made.append(arrays[network.outputs[0]].tobytes())
    assert len(set(made)) == 8
    assert kernels.stand_ins == (("SVDF", TFLITE_MICRO),)


def test_svdf_with_int8_state_is_kept_from_litert(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels_module, "installed", lambda oracle: oracle != TFLITE_MICRO)
    network = read_network(svdf(np.int8))
    arrays = {index: np.zeros(network.tensors[index].shape, np.int8) for index in (0, 4)}
    with pytest.raises(ModelError, match=r"\(SVDF\) corrupts memory .*: install tflite-micro"):
        Kernels(network).run(network.operators[0], arrays)


@pytest.mark.parametrize(
    ("micro", "rest"), [(True, "nor has tflite-micro"), (False, "and .* is not installed")]
)
def test_an_unknown_operator_is_one_sentence(monkeypatch: pytest.MonkeyPatch, micro: bool, rest: str) -> None:
    monkeypatch.setattr(
        kernels_module, "installed", lambda oracle: oracle != TFLITE_MICRO or (micro and MICRO)
    )
    network = read_network(custom("PosenetDecoderOp"))
    if micro and not MICRO:
        pytest.skip("tflite-micro has wheels for x86-64 only")
    with pytest.raises(
        ModelError, match=rf"^LiteRT has no kernel for CPU operator 0 \(PosenetDecoderOp\), {rest}: "
    ):
        Kernels(network).run(network.operators[0], {0: np.zeros((1, 8), np.int8)})


def test_a_refused_operator_is_one_sentence_with_litert_s_reason() -> None:
    network = read_network(depth_to_space_by_0())
    reason = r"CPU operator 0 \(DEPTH_TO_SPACE\) \(.*block_size > 0 was not true\): replace [^.]*$"
    with pytest.raises(ModelError, match=f"^{LITERT_REF} refuses {reason}"):
        Kernels(network).run(network.operators[0], {0: np.zeros((1, 2, 2, 4), np.int8)})


def test_axes_of_1_may_differ_and_no_others() -> None:
    """Vela leaves CASTs of [17] to [1, 17] on the CPU."""
    network = read_network(relu_of_other_shape((3, 1), (1, 3)))
    (made,) = Kernels(network).run(network.operators[0], {0: np.array([[-1], [2], [3]], np.int8)}).values()
    assert made.tolist() == [[0, 2, 3]]
    for shape in ((4,), (6,), (3, 2)):
        network = read_network(relu_of_other_shape((2, 3), shape))
        with pytest.raises(
            ModelError, match=r"failed in CPU operator 0 \(RELU\) \(its result is int8 \[2, 3\]"
        ):
            Kernels(network).run(network.operators[0], {0: np.zeros((2, 3), np.int8)})
