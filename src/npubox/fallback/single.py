# SPDX-License-Identifier: Apache-2.0
"""Build a .tflite around one operator of a network, so that a reference kernel can run it alone."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from npubox.errors import ModelError
from npubox.formats.network import Network, Operator

OUTPUT_SHAPE = {"TRANSPOSE_CONV": 0}
"""The input that gives the output's shape. Where an exporter made it an input of the network, its value is
not read: neither Vela nor tflite-micro does, all memory is planned for the shape of the output tensor."""


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


def single_operator(network: Network, operator: Operator, *, copy_state: bool = False) -> SingleOperator:
    """The operator with its constants, options and quantisation as the network's file has them. Raises
    `ModelError` for a file that is damaged there: `read_network` looks at no operator's options.

    With `copy_state` the variables are inputs and outputs of the graph too, behind its others, and RESHAPEs
    copy them: for tflite-micro, through whose interpreter nobody can set a variable.
    """
    try:
        return _single_operator(network, operator, copy_state)
    except (struct.error, LookupError, ValueError, TypeError, ArithmeticError, AttributeError) as error:
        raise ModelError(
            f"{network.name} is damaged at operator {operator.index} ({error}): export or download it again"
        ) from error


def _single_operator(network: Network, operator: Operator, copy_state: bool) -> SingleOperator:
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
    shape = _output_shape(network, operator)
    constants = {index: network.tensors[index].data for index in used} | shape
    single.subgraphs[0].tensors = [
        _tensor(graph, index, constants[index], single, schema) for index in position
    ]

    packed.opcodeIndex = 0
    packed.inputs = _renumbered(operator.inputs, position)
    packed.outputs = _renumbered(operator.outputs, position)
    packed.intermediates = _renumbered(intermediates, position) if intermediates else None
    single.subgraphs[0].operators = [packed]

    read = [network.tensors[index] for index in dict.fromkeys(operator.inputs) if index >= 0]
    inputs = tuple(t.index for t in read if constants[t.index] is None and not t.is_variable)
    variables = tuple(t.index for t in read if t.is_variable)
    single.subgraphs[0].inputs = _renumbered(inputs, position)
    single.subgraphs[0].outputs = _renumbered(operator.outputs, position)
    if copy_state:
        _copy_state(single, [position[index] for index in variables], schema)

    builder = flatbuffers.Builder(1024)
    builder.Finish(single.Pack(builder), b"TFL3")
    return SingleOperator(bytes(builder.Output()), position, inputs, variables, operator.outputs)


def _output_shape(network: Network, operator: Operator) -> dict[int, Any]:
    """The operator's `OUTPUT_SHAPE` input as a constant, where the network has none."""
    index = operator.inputs[OUTPUT_SHAPE[operator.name]] if operator.name in OUTPUT_SHAPE else -1
    if index < 0 or network.tensors[index].data is not None:
        return {}
    tensor = network.tensors[index]
    return {index: np.array(network.tensors[operator.outputs[0]].shape, tensor.dtype).view(np.uint8)}


def _tensor(graph: Any, index: int, data: Any, single: Any, schema: Any) -> Any:
    tensor = schema.TensorT.InitFromObj(graph.Tensors(index))
    tensor.shapeSignature = None  # the shape is fixed here, whatever the exporter left open
    tensor.buffer = 0
    if data is not None:
        buffer = schema.BufferT()
        buffer.data = data
        tensor.buffer = len(single.buffers)
        single.buffers.append(buffer)
    return tensor


def _copy_state(single: Any, variables: list[int], schema: Any) -> None:
    graph = single.subgraphs[0]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RESHAPE
    code.version = 1
    single.operatorCodes.append(code)
    before = [_copy(graph, variable, schema, inward=True) for variable in variables]
    after = [_copy(graph, variable, schema, inward=False) for variable in variables]
    graph.inputs = np.append(graph.inputs, [made.inputs[0] for made in before]).astype(np.int32)
    graph.outputs = np.append(graph.outputs, [made.outputs[0] for made in after]).astype(np.int32)
    graph.operators = [*before, *graph.operators, *after]


def _copy(graph: Any, variable: int, schema: Any, *, inward: bool) -> Any:
    """A RESHAPE from a new tensor like the variable into it (`inward`), or from it into a new one."""
    like = graph.tensors[variable]
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = b"state", like.shape, like.type, 0
    tensor.quantization = like.quantization
    graph.tensors.append(tensor)
    new = len(graph.tensors) - 1
    made = schema.OperatorT()
    made.opcodeIndex = 1
    made.inputs, made.outputs = ([new], [variable]) if inward else ([variable], [new])
    made.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
    made.builtinOptions = schema.ReshapeOptionsT()
    made.builtinOptions.newShape = like.shape
    return made


def _renumbered(indices: tuple[int, ...], position: dict[int, int]) -> Any:
    return np.array([position[index] if index >= 0 else -1 for index in indices], np.int32)
