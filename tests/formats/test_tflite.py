# SPDX-License-Identifier: Apache-2.0
"""Reading .tflite files: what they say, and one sentence for whatever is wrong with them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npubox.errors import ModelError
from npubox.formats.network import Network
from npubox.formats.tflite import read_network, require_quantized
from tests.networks import SHARED_NAMES, compiled_by_vela, fully_connected, packed, shared_network, unpacked

TINY = fully_connected()


def test_says_what_the_file_says() -> None:
    network = read_network(TINY)
    assert [tensor.name for tensor in network.tensors] == ["x", "weights", "bias", "y"]
    assert [(op.name, op.inputs, op.outputs) for op in network.operators] == [
        ("FULLY_CONNECTED", (0, 1, 2), (3,))
    ]
    assert (network.inputs, network.outputs, network.arena_size, network.compiled) == ((0,), (3,), 0, False)
    x, weights, _bias, _y = network.tensors
    assert (x.shape, x.dtype, x.nbytes, x.data) == ((1, 8), np.dtype(np.int8), 8, None)
    assert x.quantization is not None
    assert x.quantization.per_tensor
    assert x.quantization.scales == pytest.approx((0.05,))
    assert weights.data is not None
    assert weights.data.nbytes == weights.nbytes == 32


def test_constants_are_views_into_the_file() -> None:
    network = read_network(TINY)
    data = network.tensors[1].data
    assert data is not None
    assert np.shares_memory(data, np.frombuffer(network.content, np.uint8))
    assert not data.flags.writeable


@pytest.mark.parametrize("name", [name for name in SHARED_NAMES if name != "person_detect"])
def test_agrees_with_litert_on_every_tensor(name: str) -> None:
    """All but person_detect, which LiteRT refuses."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    path = shared_network(name)
    network = read_network(path)
    interpreter = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
    for tensor in network.tensors:
        detail = details[tensor.index]
        assert (tensor.name, tensor.dtype) == (detail["name"], detail["dtype"])
        assert tensor.shape == tuple(detail["shape"])
        scales = tensor.quantization.scales if tensor.quantization is not None else ()
        assert scales == tuple(detail["quantization_parameters"]["scales"].tolist())
    assert network.inputs == tuple(d["index"] for d in interpreter.get_input_details())
    assert network.outputs == tuple(d["index"] for d in interpreter.get_output_details())
    assert [op.name for op in network.operators] == [d["op_name"] for d in interpreter._get_ops_details()]


@pytest.mark.parametrize("name", SHARED_NAMES)
def test_compiled_keeps_inputs_and_outputs_and_plans_them_in_the_arena(name: str) -> None:
    source = read_network(shared_network(name))
    compiled = compiled_by_vela(source.content, "ethos-u65-256")
    assert [op.name for op in compiled.operators] == ["ethos-u"]
    for ours, theirs in ((source.inputs, compiled.inputs), (source.outputs, compiled.outputs)):
        assert [_described(source, i) for i in ours] == [_described(compiled, i) for i in theirs]
        for tensor in (compiled.tensors[i] for i in theirs):
            assert tensor.arena_offset is not None
            assert tensor.arena_offset + tensor.nbytes <= compiled.arena_size
    npu = compiled.operators[0].npu
    assert npu is not None
    assert compiled.tensors[npu.scratch].nbytes <= compiled.arena_size
    assert compiled.tensors[npu.read_only].data is not None
    assert len(compiled.variables) >= len(source.variables)


def _described(network: Network, index: int) -> tuple[object, ...]:
    tensor = network.tensors[index]
    return tensor.name, tensor.shape, tensor.dtype, tensor.quantization


def test_takes_inputs_and_outputs_from_the_subgraph_though_the_operator_lists_state_first() -> None:
    source = read_network(shared_network("trained_lstm_int8"))
    compiled = compiled_by_vela(source.content, "ethos-u65-256")
    (operator,) = compiled.operators
    assert len(operator.outputs) > 1
    assert len(compiled.outputs) == 1
    assert compiled.tensors[compiled.outputs[0]].shape == (1, 10)


def test_operators_left_to_the_cpu_stay_between_npu_operators() -> None:
    source = read_network(shared_network("ic_resnet8_int8"))
    compiled = compiled_by_vela(source.content, "ethos-u65-256", "--ignore-ops", "AVERAGE_POOL_2D,SOFTMAX")
    assert [op.name for op in compiled.operators] == ["ethos-u", "AVERAGE_POOL_2D", "ethos-u", "SOFTMAX"]
    planned = [t for op in compiled.operators for t in map(compiled.tensors.__getitem__, op.outputs)]
    assert all(
        t.arena_offset is not None and t.arena_offset + t.nbytes <= compiled.arena_size for t in planned
    )


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no file .*absent\.tflite"):
        read_network(tmp_path / "absent.tflite")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read: Is a directory"):
        read_network(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK", b"not a network at all", TINY[8:]])
def test_something_else(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.tflite is not a \.tflite file"):
        read_network(path)


def test_truncated_at_every_length_is_a_model_error() -> None:
    refused = 0
    for length in range(len(TINY)):
        with contextlib.suppress(ModelError):
            read_network(TINY[:length])
            continue
        refused += 1
    # FlatBuffers pads its end; what is cut there is not missed.
    assert refused >= len(TINY) - 4


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(TINY) - 1), st.integers(1, 255)), min_size=1, max_size=8))
def test_flipped_bytes_give_a_network_or_a_model_error(flips: list[tuple[int, int]]) -> None:
    damaged = bytearray(TINY)
    for at, flip in flips:
        damaged[at] ^= flip
    with contextlib.suppress(ModelError):
        network = read_network(bytes(damaged))
        require_quantized(network)
        for tensor in network.tensors:
            assert tensor.data is None or tensor.data.nbytes == tensor.nbytes


@settings(deadline=None)
@given(at=st.integers(0, 2**16), flip=st.integers(1, 255))
def test_flipped_bytes_in_a_compiled_network(at: int, flip: int) -> None:
    damaged = bytearray(compiled_by_vela(TINY, "ethos-u65-256").content)
    damaged[at % len(damaged)] ^= flip
    with contextlib.suppress(ModelError):
        read_network(bytes(damaged))


def test_messages_stay_one_line_whatever_the_names_hold() -> None:
    assert TINY.count(b"weights") == 1
    named = TINY.replace(b"weights", b"we\nghts")
    with pytest.raises(ModelError, match=r"tensor 1 \('we\\nghts'\) is of type STRING"):
        read_network(_with_type(named, tensor=1, kind=5))


def _with_type(content: bytes, tensor: int, kind: int) -> bytes:
    model = unpacked(content)
    model.subgraphs[0].tensors[tensor].type = kind
    return packed(model)


def test_several_subgraphs_are_refused_by_number() -> None:
    model = unpacked(TINY)
    model.subgraphs *= 2
    with pytest.raises(ModelError, match="it has 2 subgraphs"):
        read_network(packed(model))


def test_float_networks_are_told_to_be_quantised(tmp_path: Path) -> None:
    path = tmp_path / "float.tflite"
    path.write_bytes(fully_connected(np.float32))
    with pytest.raises(ModelError, match=r"float\.tflite is a float network; quantise it to int8 first"):
        require_quantized(read_network(path))


@pytest.mark.parametrize("name", SHARED_NAMES)
def test_quantised_networks_pass(name: str) -> None:
    require_quantized(read_network(shared_network(name)))
