# SPDX-License-Identifier: Apache-2.0
"""Networks of one operator each that the worker, its kernels or its models had trouble with."""

from __future__ import annotations

import numpy as np
from tflite import BuiltinOperator

from tests.corpus.graph import Graph
from tests.networks import fully_connected, packed, unpacked

INPUT_SCALE, WEIGHTS_SCALE, STATE_SCALE, TIME_SCALE = 0.05, 0.01, 0.04, 0.02


def svdf(state: type[np.signedinteger] = np.int8, rank: int = 1) -> bytes:
    """An int8 SVDF: 6 inputs, 4 filters that remember 5 steps. LiteRT's kernel corrupts memory where the
    state is int8, and divides by `rank`."""
    graph = Graph()
    x, y = _svdf(graph, state, rank)
    return graph.content([x], [y])


def svdf_of_rank_0_beside_relu() -> bytes:
    """One operator that crashes, and one that does not."""
    graph = Graph()
    ends = _svdf(graph, np.int8, 0), _relu(graph, 100)
    return graph.content(*zip(*ends, strict=True))


def relus(*sizes: int) -> bytes:
    """A RELU of each size in bytes, none behind another."""
    graph = Graph()
    ends = [_relu(graph, size) for size in sizes]
    return graph.content(*zip(*ends, strict=True))


def relu_of_other_shape(given: tuple[int, ...], made: tuple[int, ...]) -> bytes:
    """A RELU whose output has another shape than its kernel will give it."""
    graph = Graph()
    x, y = (graph.tensor(shape, np.int8, INPUT_SCALE) for shape in (given, made))
    graph.operator("RELU", [x], [y])
    return graph.content([x], [y])


def slow_convolution(size: int = 512) -> bytes:
    """A small RELU, and a CONV_2D of 295 thousand multiplications for each of `size` * `size` pixels:
    minutes on reference kernels for 512."""
    graph = Graph()
    first = _relu(graph, 100)
    x = graph.tensor((1, size, size, 128), np.int8, INPUT_SCALE)
    kernel = graph.tensor((256, 3, 3, 128), np.int8, WEIGHTS_SCALE, data=np.ones((256, 3, 3, 128)))
    bias = graph.tensor((256,), np.int32, INPUT_SCALE * WEIGHTS_SCALE, data=np.zeros(256))
    y = graph.tensor((1, size, size, 256), np.int8, INPUT_SCALE)
    graph.operator("CONV_2D", [x, kernel, bias], [y], "Conv2DOptions", strideH=1, strideW=1)
    return graph.content([first[0], x], [first[1], y])


def transpose_conv(*, shape_is_input: bool) -> bytes:
    """int16 TRANSPOSE_CONV [1, 2, 5, 8] to [1, 3, 11, 4], with strides 1, 2 that Vela leaves to the CPU. Its
    output_shape is a constant, or an input of the network."""
    rng = np.random.default_rng(4)
    graph = Graph()
    made = (1, 3, 11, 4)
    shape = graph.tensor((4,), np.int32, data=None if shape_is_input else np.array(made))
    weights = rng.integers(-127, 128, (4, 2, 3, 8))
    kernel = graph.tensor((4, 2, 3, 8), np.int8, [0.01, 0.02, 0.03, 0.04], [0] * 4, data=weights)
    x = graph.tensor((1, 2, 5, 8), np.int16, 0.0001)
    scales = 0.0001 * np.array([0.01, 0.02, 0.03, 0.04])
    bias = graph.tensor((4,), np.int64, scales.tolist(), [0] * 4, data=rng.integers(-9999, 9999, 4))
    y = graph.tensor(made, np.int16, 0.0004)
    options = {"strideH": 1, "strideW": 2, "padding": graph.schema.Padding.VALID}
    graph.operator("TRANSPOSE_CONV", [shape, kernel, x, bias], [y], "TransposeConvOptions", **options)
    return graph.content([shape, x] if shape_is_input else [x], [y])


def depth_to_space_by_0() -> bytes:
    graph = Graph()
    x, y = (graph.tensor((1, 2, 2, 4), np.int8, INPUT_SCALE) for _ in range(2))
    graph.operator("DEPTH_TO_SPACE", [x], [y], "DepthToSpaceOptions", blockSize=0)
    return graph.content([x], [y])


def custom(name: str) -> bytes:
    """A custom operator that no runtime has."""
    model = unpacked(fully_connected())
    (code,), (operator,) = model.operatorCodes, model.subgraphs[0].operators
    code.builtinCode = code.deprecatedBuiltinCode = BuiltinOperator.CUSTOM
    code.customCode = name
    operator.builtinOptionsType, operator.builtinOptions = 0, None
    return packed(model)


def _relu(graph: Graph, size: int) -> tuple[int, int]:
    x, y = (graph.tensor((1, size), np.int8, INPUT_SCALE) for _ in range(2))
    graph.operator("RELU", [x], [y])
    return x, y


def _svdf(graph: Graph, state: type[np.signedinteger], rank: int) -> tuple[int, int]:
    rng = np.random.default_rng(3)
    x = graph.tensor((1, 6), np.int8, INPUT_SCALE, 3)
    feature = graph.tensor((4, 6), np.int8, WEIGHTS_SCALE, data=rng.integers(-127, 128, (4, 6)))
    time_dtype = np.int8 if state is np.int8 else np.int16
    time = graph.tensor((4, 5), time_dtype, TIME_SCALE, data=rng.integers(-127, 128, (4, 5)))
    bias = graph.tensor((4,), np.int32, STATE_SCALE * TIME_SCALE, data=rng.integers(-99, 99, 4))
    zero_point = -7 if state is np.int8 else 0
    memory = graph.tensor((1, 20), state, STATE_SCALE, zero_point, variable=True)
    y = graph.tensor((1, 4), np.int8, 0.1, -1)
    graph.operator("SVDF", [x, feature, time, bias, memory], [y], "SVDFOptions", rank=rank)
    return x, y
