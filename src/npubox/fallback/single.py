# SPDX-License-Identifier: Apache-2.0
"""Build a .tflite around one operator of a network, so that a reference kernel can run it alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from npubox.formats.network import Network, Operator


@dataclass(frozen=True)
class SingleOperator:
    """`content` is the .tflite; `position` maps the network's tensor indices to those in it.

    `inputs` are what the operator reads at run time, `variables` the state it keeps, `outputs` what it
    writes, all as tensor indices of the network.
    """

    content: bytes
    position: dict[int, int]
    inputs: tuple[int, ...]
    variables: tuple[int, ...]
    outputs: tuple[int, ...]


def single_operator(network: Network, operator: Operator) -> SingleOperator:
    """The operator with its constants, options and quantisation as the network's file has them."""
    import flatbuffers  # type: ignore[import-untyped]
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(network.content, 0)
    graph = model.Subgraphs(0)
    packed = schema.OperatorT.InitFromObj(graph.Operators(operator.index))
    intermediates = () if packed.intermediates is None else tuple(int(i) for i in packed.intermediates)
    used = dict.fromkeys(i for i in (*operator.inputs, *operator.outputs, *intermediates) if i >= 0)
    position = {index: at for at, index in enumerate(used)}

    single = schema.ModelT()
    single.version = model.Version()
    single.operatorCodes = [schema.OperatorCodeT.InitFromObj(model.OperatorCodes(packed.opcodeIndex))]
    single.buffers = [schema.BufferT()]  # buffer 0 is the one of tensors without data
    single.subgraphs = [schema.SubGraphT()]
    single.subgraphs[0].tensors = [_tensor(network, index, graph, single, schema) for index in position]

    packed.opcodeIndex = 0
    packed.inputs = _renumbered(operator.inputs, position)
    packed.outputs = _renumbered(operator.outputs, position)
    packed.intermediates = _renumbered(intermediates, position) if intermediates else None
    single.subgraphs[0].operators = [packed]

    read = [network.tensors[index] for index in dict.fromkeys(operator.inputs) if index >= 0]
    inputs = tuple(t.index for t in read if t.data is None and not t.is_variable)
    variables = tuple(t.index for t in read if t.is_variable)
    single.subgraphs[0].inputs = _renumbered(inputs, position)
    single.subgraphs[0].outputs = _renumbered(operator.outputs, position)

    builder = flatbuffers.Builder(1024)
    builder.Finish(single.Pack(builder), b"TFL3")
    return SingleOperator(bytes(builder.Output()), position, inputs, variables, operator.outputs)


def _tensor(network: Network, index: int, graph: Any, single: Any, schema: Any) -> Any:
    tensor = schema.TensorT.InitFromObj(graph.Tensors(index))
    tensor.shapeSignature = None  # the shape is fixed here, whatever the exporter left open
    tensor.buffer = 0
    data = network.tensors[index].data
    if data is not None:
        buffer = schema.BufferT()
        buffer.data = data
        tensor.buffer = len(single.buffers)
        single.buffers.append(buffer)
    return tensor


def _renumbered(indices: tuple[int, ...], position: dict[int, int]) -> Any:
    return np.array([position[index] if index >= 0 else -1 for index in indices], np.int32)
