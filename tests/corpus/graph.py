# SPDX-License-Identifier: Apache-2.0
"""Build .tflite files through LiteRT's schema classes, without TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.networks import packed

Array = npt.NDArray[Any]

# The newest version LiteRT 2.3 has a reference kernel for, where 1 is too old for int8 or int16.
VERSIONS = {
    "ABS": 4,
    "ADD": 5,
    "AVERAGE_POOL_2D": 3,
    "BATCH_MATMUL": 4,
    "CONCATENATION": 4,
    "CONV_2D": 8,
    "DEPTHWISE_CONV_2D": 6,
    "FULLY_CONNECTED": 12,
    "LEAKY_RELU": 2,
    "LOGISTIC": 3,
    "MAXIMUM": 4,
    "MAX_POOL_2D": 3,
    "MEAN": 3,
    "MINIMUM": 4,
    "MUL": 5,
    "PAD": 3,
    "QUANTIZE": 4,
    "RELU": 3,
    "RELU6": 3,
    "RESIZE_BILINEAR": 4,
    "RESIZE_NEAREST_NEIGHBOR": 4,
    "SOFTMAX": 3,
    "SQUARED_DIFFERENCE": 2,
    "STRIDED_SLICE": 4,
    "SUB": 3,
    "SVDF": 3,
    "TANH": 3,
    "TRANSPOSE": 5,
    "TRANSPOSE_CONV": 5,
}


class Graph:
    """One subgraph; `tensor` and `operator` add to it, `content` is the file."""

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema = schema
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._model = schema.ModelT()
        self._model.version, self._model.subgraphs = 3, [self._graph]
        self._model.operatorCodes, self._model.buffers = [], [schema.BufferT()]

    def tensor(
        self,
        shape: Sequence[int],
        dtype: npt.DTypeLike,
        scales: float | Sequence[float] | None = None,
        zero_points: int | Sequence[int] = 0,
        data: Array | None = None,
        axis: int = 0,
        *,
        variable: bool = False,
    ) -> int:
        """Add a tensor, constant where `data` is given, state where it is `variable`; its index."""
        made = self.schema.TensorT()
        made.name = f"tensor_{len(self._graph.tensors)}"
        made.shape = list(shape)
        made.type = getattr(self.schema.TensorType, np.dtype(dtype).name.upper())
        made.buffer = 0
        made.isVariable = variable
        if data is not None:
            assert data.shape == tuple(shape)
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(data.astype(dtype).tobytes(), np.uint8)
            made.buffer = len(self._model.buffers)
            self._model.buffers.append(buffer)
        if scales is not None:
            made.quantization = self.schema.QuantizationParametersT()
            made.quantization.scale = np.atleast_1d(scales).astype(np.float32).tolist()
            zeros = np.broadcast_to(zero_points, len(made.quantization.scale))
            made.quantization.zeroPoint = zeros.tolist()
            made.quantization.quantizedDimension = axis
        self._graph.tensors.append(made)
        return len(self._graph.tensors) - 1

    def operator(
        self, name: str, inputs: Sequence[int], outputs: Sequence[int], kind: str = "", **options: Any
    ) -> None:
        """Add an operator; `kind` names its options table (Conv2DOptions), `options` its fields."""
        code = self.schema.OperatorCodeT()
        code.builtinCode = getattr(self.schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = VERSIONS.get(name, 1)
        made = self.schema.OperatorT()
        made.opcodeIndex = len(self._model.operatorCodes)
        made.inputs, made.outputs = list(inputs), list(outputs)
        if kind:
            made.builtinOptionsType = getattr(self.schema.BuiltinOptions, kind)
            made.builtinOptions = getattr(self.schema, kind + "T")()
            for field, value in options.items():
                assert hasattr(made.builtinOptions, field), field
                setattr(made.builtinOptions, field, value)
        self._model.operatorCodes.append(code)
        self._graph.operators.append(made)

    def custom_operator(
        self, name: str, inputs: Sequence[int], outputs: Sequence[int], options: dict[str, Any]
    ) -> None:
        """Add a custom operator; its options become a FlexBuffer, as TensorFlow's converter writes them."""
        from flatbuffers import flexbuffers  # type: ignore[import-untyped]

        self.operator("CUSTOM", inputs, outputs)
        self._model.operatorCodes[-1].customCode = name
        self._graph.operators[-1].customOptions = np.frombuffer(flexbuffers.Dumps(options), np.uint8)

    def content(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """The file, with these tensors as the network's inputs and outputs."""
        self._graph.inputs, self._graph.outputs = list(inputs), list(outputs)
        return packed(self._model)
