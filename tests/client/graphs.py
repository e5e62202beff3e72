# SPDX-License-Identifier: Apache-2.0
"""Small networks of which Vela leaves something, or everything, on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.networks import fully_connected

INPUT_SCALE, OUTPUT_SCALE = 0.05, 0.1  # of tests.networks.fully_connected


def float_edges(*, both: bool = False) -> bytes:
    """FULLY_CONNECTED between a QUANTIZE and a DEQUANTIZE: float32 in and out, int8 inside.

    `both` makes the int8 result the second output.
    """
    import flatbuffers  # type: ignore[import-untyped]
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(fully_connected(np.int8), 0))
    graph = model.subgraphs[0]
    (inner_input,), (inner_output,) = graph.inputs, graph.outputs
    graph.inputs = [_float_tensor(schema, graph, "real_x", [1, 8])]
    graph.outputs = [_float_tensor(schema, graph, "real_y", [1, 4])]
    graph.outputs += [inner_output] if both else []
    operators = schema.BuiltinOperator
    first = _operator(schema, model, operators.QUANTIZE, graph.inputs[0], inner_input)
    last = _operator(schema, model, operators.DEQUANTIZE, inner_output, graph.outputs[0])
    graph.operators = [first, *graph.operators, last]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def only_quantize() -> bytes:
    """One QUANTIZE from float32 to int8, of which nothing can be on the NPU."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(float_edges(), 0))
    graph = model.subgraphs[0]
    graph.operators = graph.operators[:1]
    graph.outputs = graph.operators[0].outputs
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _float_tensor(schema: Any, graph: Any, name: str, shape: list[int]) -> int:
    made = schema.TensorT()
    made.name, made.shape, made.type, made.buffer = name, shape, schema.TensorType.FLOAT32, 0
    graph.tensors.append(made)
    return len(graph.tensors) - 1


def _operator(schema: Any, model: Any, kind: int, source: int, target: int) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = kind
    code.version = 1
    model.operatorCodes.append(code)
    made = schema.OperatorT()
    made.opcodeIndex = len(model.operatorCodes) - 1
    made.inputs, made.outputs = [source], [target]
    return made
