# SPDX-License-Identifier: Apache-2.0
"""Random networks of one operator: shapes, padding, stride, dilation, broadcast, activation, quantisation.

`BUILDERS` has each operator's types. Hypothesis draws the structure; weights and inputs come
from a seed that it draws as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from tests.corpus.graph import Array, Graph
from tests.corpus.oracles import LITERT_REF, SHIFTED, TFLITE_MICRO

INT8, INT16, UINT8 = np.dtype(np.int8), np.dtype(np.int16), np.dtype(np.uint8)
ALL, SIGNED = (INT8, INT16, UINT8), (INT8, INT16)
SAME, VALID = 0, 1  # schema.Padding
ACTIVATIONS = (0, 1, 2, 3)  # schema.ActivationFunctionType: none, relu, relu_n1_to_1, relu6
WEIGHT = 127
# tflite-micro has no uint8 kernels: LiteRT's reference kernels answer there. Other exceptions:
OTHER_ORACLES = {
    ("FULLY_CONNECTED", UINT8): SHIFTED,  # LiteRT's reference rounds once, the NPU twice
    ("LEAKY_RELU", INT16): LITERT_REF,  # tflite-micro rounds a few values the other way
    ("MUL", INT16): LITERT_REF,  # likewise
    ("RELU", INT16): LITERT_REF,  # likewise
    ("SOFTMAX", INT16): LITERT_REF,  # likewise
    ("RESIZE_BILINEAR", INT16): LITERT_REF,  # tflite-micro has no kernel
}

DType = np.dtype[Any]


class Single:
    """A .tflite, vectors of inputs for it, and which oracle answers for it. `text` is for reports."""

    def __init__(self, text: str, content: bytes, vectors: list[list[Array]], oracle: str) -> None:
        self.text = text
        self.content = content
        self.vectors = vectors
        self.oracle = oracle

    def __repr__(self) -> str:
        return f"{self.text}, by {self.oracle}"


class Maker:
    """What one example is made of."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any], name: str, dtype: DType) -> None:
        self._draw = draw
        self.name = name
        self.dtype = dtype
        self.random = np.random.default_rng(self.integer(0, 2**32 - 1))
        self.graph = Graph()
        self._inputs: list[tuple[int, tuple[int, ...]]] = []

    def choose(self, values: Any) -> Any:
        return self._draw(st.sampled_from(list(values)))

    def integer(self, least: int, most: int) -> int:
        return int(self._draw(st.integers(least, most)))

    def real(self, least: float, most: float) -> float:
        return float(self._draw(st.floats(least, most)))

    def scale(self, least: float = -9, most: float = 1) -> float:
        """2 to a power that is drawn."""
        return float(np.float32(2 ** self.real(least, most)))

    def zero_point(self, dtype: DType | None = None) -> int:
        dtype = dtype or self.dtype
        if dtype == INT16:
            return 0
        limits = np.iinfo(dtype)
        return self.integer(int(limits.min), int(limits.max))

    def image(self, least: int = 1) -> tuple[int, int, int, int]:
        return 1, self.integer(least, 14), self.integer(least, 12), self.integer(1, 20)

    def input(self, shape: tuple[int, ...], scale: float, zero: int, dtype: DType | None = None) -> int:
        index = self.graph.tensor(shape, dtype or self.dtype, scale, zero)
        self._inputs.append((index, shape))
        return index

    def tensor(self, shape: tuple[int, ...], scale: float, zero: int, dtype: DType | None = None) -> int:
        return self.graph.tensor(shape, dtype or self.dtype, scale, zero)

    def integers(self, *values: int) -> int:
        return self.graph.tensor((len(values),), np.int32, data=np.array(values, np.int32))

    def weights(self, shape: tuple[int, ...], axis: int) -> tuple[int, Array]:
        """Per channel along `axis`, or per tensor (uint8 always). The tensor and its scales."""
        channels = shape[axis]
        if self.dtype == UINT8:
            scales, zero = np.array([self.scale(-9, -3)], np.float32), self.integer(0, 255)
            data = self.random.integers(0, 256, shape)
            return self.graph.tensor(shape, np.uint8, scales.tolist(), zero, data), scales
        count = channels if self.choose((True, False)) else 1
        scales = self.scale(-9, -3) * self.random.uniform(0.2, 1, count).astype(np.float32)
        data = self.random.integers(-WEIGHT, WEIGHT + 1, shape)
        return self.graph.tensor(shape, np.int8, scales.tolist(), 0, data, axis), scales

    def bias(self, channels: int, scales: npt.NDArray[np.float64]) -> int:
        """-1 where there is none."""
        must = self.dtype == UINT8 or self.name == "DEPTHWISE_CONV_2D"  # or reference kernels abort
        if not must and self.choose((False, True)):
            return -1
        wide = self.dtype == INT16
        most = 1 << (24 if wide else 14)
        data = self.random.integers(-most, most, channels)
        return self.graph.tensor((channels,), np.int64 if wide else np.int32, scales.tolist(), 0, data)

    def weighted_scale(self, input_scale: float, weight_scales: Array, products: int) -> float:
        """An output scale that uses the range, more or less, for sums of so many products."""
        spread = math.sqrt(products) * WEIGHT / 3
        return float(np.float32(input_scale * float(weight_scales.max()) * spread * self.scale(-2, 3)))

    def made(self, outputs: list[int]) -> Single:
        content = self.graph.content([index for index, _ in self._inputs], outputs)
        limits = np.iinfo(self.dtype)
        drawn = [
            [
                self.random.integers(limits.min, limits.max + 1, shape).astype(self.dtype)
                for _, shape in self._inputs
            ]
            for _ in range(2)
        ]
        extremes = [
            [np.full(shape, v, self.dtype) for _, shape in self._inputs] for v in (limits.min, limits.max)
        ]
        shapes = " ".join("x".join(map(str, shape)) for _, shape in self._inputs)
        return Single(
            f"{self.name} {self.dtype} {shapes}",
            content,
            drawn + extremes,
            OTHER_ORACLES.get((self.name, self.dtype), LITERT_REF if self.dtype == UINT8 else TFLITE_MICRO),
        )


def windowed(size: int, kernel: int, stride: int, padding: int) -> int:
    return -(-size // stride) if padding == SAME else (size - kernel) // stride + 1


def convolution(m: Maker) -> Single:
    depthwise = m.name == "DEPTHWISE_CONV_2D"
    shape = m.image()
    padding, kernel = m.choose((SAME, VALID)), (m.integer(1, 5), m.integer(1, 5))
    stride, dilation = (m.integer(1, 3), m.integer(1, 3)), (1, 1)
    if m.choose((False, True)):
        stride, dilation = (1, 1), (m.integer(1, 3), m.integer(1, 3))
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if padding == VALID:
        shape = (1, max(shape[1], extent[0]), max(shape[2], extent[1]), shape[3])
    height, width = (windowed(*values, padding) for values in zip(shape[1:3], extent, stride, strict=True))
    if depthwise:
        multiplier = m.integer(1, 8) if shape[3] == 1 else 1
        channels, products = shape[3] * multiplier, kernel[0] * kernel[1]
        weights, scales = m.weights((1, *kernel, channels), 3)
    else:
        channels, products = m.integer(1, 24), kernel[0] * kernel[1] * shape[3]
        weights, scales = m.weights((channels, *kernel, shape[3]), 0)
    scale = m.scale()
    x = m.input(shape, scale, m.zero_point())
    bias = m.bias(channels, scales * np.float64(scale))
    y = m.tensor((1, height, width, channels), m.weighted_scale(scale, scales, products), m.zero_point())
    options = {"depthMultiplier": multiplier} if depthwise else {}
    m.graph.operator(
        m.name,
        [x, weights, bias],
        [y],
        "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions",
        padding=padding,
        strideH=stride[0],
        strideW=stride[1],
        dilationHFactor=dilation[0],
        dilationWFactor=dilation[1],
        fusedActivationFunction=m.choose(ACTIVATIONS),
        **options,
    )
    return m.made([y])


def transposed_convolution(m: Maker) -> Single:
    shape, channels, kernel = m.image(), m.integer(1, 12), (m.integer(1, 4), m.integer(1, 4))
    stride, padding = m.choose(((1, 1), (2, 2))), m.choose((SAME, VALID))
    height, width = (
        n * s if padding == SAME else (n - 1) * s + k
        for n, s, k in zip(shape[1:3], stride, kernel, strict=True)
    )
    weights, scales = m.weights((channels, *kernel, shape[3]), 0)
    scale = m.scale()
    x = m.input(shape, scale, m.zero_point())
    bias = m.bias(channels, scales * np.float64(scale))
    products = kernel[0] * kernel[1] * shape[3]
    y = m.tensor((1, height, width, channels), m.weighted_scale(scale, scales, products), m.zero_point())
    m.graph.operator(
        m.name,
        [m.integers(1, height, width, channels), weights, x, *([bias] if bias >= 0 else [])],
        [y],
        "TransposeConvOptions",
        padding=padding,
        strideH=stride[0],
        strideW=stride[1],
    )
    return m.made([y])


def fully_connected(m: Maker) -> Single:
    batch, depth, units = m.integer(1, 4), m.integer(1, 90), m.integer(1, 40)
    weights, scales = m.weights((units, depth), 0)
    scale = m.scale()
    x = m.input((batch, depth), scale, m.zero_point())
    bias = m.bias(units, scales * np.float64(scale))
    y = m.tensor((batch, units), m.weighted_scale(scale, scales, depth), m.zero_point())
    m.graph.operator(
        m.name,
        [x, weights, bias],
        [y],
        "FullyConnectedOptions",
        fusedActivationFunction=m.choose(ACTIVATIONS),
    )
    return m.made([y])


def pool(m: Maker) -> Single:
    shape, kernel, stride = m.image(), (m.integer(1, 6), m.integer(1, 6)), (m.integer(1, 3), m.integer(1, 3))
    padding = m.choose((SAME, VALID))
    if padding == VALID:
        shape = (1, max(shape[1], kernel[0]), max(shape[2], kernel[1]), shape[3])
    height, width = (windowed(*values, padding) for values in zip(shape[1:3], kernel, stride, strict=True))
    scale, zero = m.scale(), m.zero_point()
    x, y = m.input(shape, scale, zero), m.tensor((1, height, width, shape[3]), scale, zero)
    m.graph.operator(
        m.name,
        [x],
        [y],
        "Pool2DOptions",
        padding=padding,
        strideH=stride[0],
        strideW=stride[1],
        filterHeight=kernel[0],
        filterWidth=kernel[1],
        fusedActivationFunction=m.choose(ACTIVATIONS),
    )
    return m.made([y])


BINARY_OPTIONS = {
    "ADD": "AddOptions",
    "SUB": "SubOptions",
    "MUL": "MulOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "SQUARED_DIFFERENCE": "SquaredDifferenceOptions",
}


def binary(m: Maker) -> Single:
    whole = m.image()
    other = tuple(1 if m.choose((False, False, True)) else n for n in whole)
    first, second = (whole, other) if m.choose((True, False)) else (other, whole)
    scales, zeros = [m.scale(-7, 0), m.scale(-7, 0)], [m.zero_point(), m.zero_point()]
    options = {}
    if m.name in ("MINIMUM", "MAXIMUM"):
        scales[1], zeros[1] = scales[0], zeros[0]
        scale, zero = scales[0], zeros[0]
    else:
        span = float(np.iinfo(m.dtype).max) / 2
        scale = max(scales) if m.name in ("ADD", "SUB") else scales[0] * scales[1] * span
        if m.name == "SQUARED_DIFFERENCE":
            scale = max(scales) ** 2 * span
        scale, zero = float(np.float32(scale * m.scale(-1, 2))), m.zero_point()
        if m.name != "SQUARED_DIFFERENCE":
            options["fusedActivationFunction"] = m.choose(ACTIVATIONS)
    if m.name in ("ADD", "SUB"):
        options["potScaleInt16"] = False
    a = m.input(first, scales[0], zeros[0])
    if m.choose((False, False, True)):
        limits = np.iinfo(m.dtype)
        data = m.random.integers(limits.min, limits.max + 1, second)
        b = m.graph.tensor(second, m.dtype, scales[1], zeros[1], data)
    else:
        b = m.input(second, scales[1], zeros[1])
    y = m.tensor(tuple(map(max, first, second)), scale, zero)
    m.graph.operator(m.name, [a, b], [y], BINARY_OPTIONS[m.name], **options)
    return m.made([y])


FIXED_OUTPUT = {  # scale and zero point that TFLite prescribes
    ("LOGISTIC", INT8): (1 / 256, -128),
    ("LOGISTIC", INT16): (1 / 32768, 0),
    ("LOGISTIC", UINT8): (1 / 256, 0),
    ("TANH", INT8): (1 / 128, 0),
    ("TANH", INT16): (1 / 32768, 0),
    ("TANH", UINT8): (1 / 128, 128),
    ("SOFTMAX", INT8): (1 / 256, -128),
    ("SOFTMAX", INT16): (1 / 32768, 0),
    ("SOFTMAX", UINT8): (1 / 256, 0),
}


def unary(m: Maker) -> Single:
    shape = m.image()
    scale = m.scale(-13, -8) if m.dtype == INT16 else m.scale(-7, -1)
    x = m.input(shape, scale, m.zero_point())
    if (m.name, m.dtype) in FIXED_OUTPUT:
        y = m.tensor(shape, *FIXED_OUTPUT[m.name, m.dtype])
    else:
        y = m.tensor(shape, float(np.float32(scale * m.scale(-1, 1.5))), m.zero_point())
    options: tuple[str, dict[str, Any]] = ("", {})
    if m.name == "LEAKY_RELU":
        options = ("LeakyReluOptions", {"alpha": m.real(0.01, 0.99)})
    elif m.name == "SOFTMAX":
        options = ("SoftmaxOptions", {"beta": m.choose((1.0, 0.5, 2.0))})
    m.graph.operator(m.name, [x], [y], options[0], **options[1])
    return m.made([y])


KERNELS_QUANTIZE = {INT8: ALL, INT16: SIGNED, UINT8: (INT8, UINT8)}  # the pairs that oracles have


def requantize(m: Maker) -> Single:
    target = m.choose(KERNELS_QUANTIZE[m.dtype])
    shape, scale = m.image(), m.scale(-7, 0)
    more = (np.iinfo(m.dtype).max - np.iinfo(m.dtype).min) / (np.iinfo(target).max - np.iinfo(target).min)
    x = m.input(shape, scale, m.zero_point())
    y = m.tensor(shape, float(np.float32(scale * more * m.scale(-1, 2))), m.zero_point(target), target)
    m.graph.operator(m.name, [x], [y], "QuantizeOptions")
    return m.made([y])


def resize(m: Maker) -> Single:
    shape, factor = m.image(), m.choose((2, 4, 8))
    mode = m.choose(("plain", "align_corners", "half_pixel"))
    shape = (1, min(shape[1], 6), min(shape[2], 6), shape[3])
    less = factor - 1 if mode == "align_corners" else 0
    height, width = (n * factor - less for n in shape[1:3])
    scale, zero = m.scale(), m.zero_point()
    x, y = m.input(shape, scale, zero), m.tensor((1, height, width, shape[3]), scale, zero)
    kind = "ResizeBilinearOptions" if m.name == "RESIZE_BILINEAR" else "ResizeNearestNeighborOptions"
    m.graph.operator(
        m.name,
        [x, m.integers(height, width)],
        [y],
        kind,
        alignCorners=mode == "align_corners",
        halfPixelCenters=mode == "half_pixel",
    )
    return m.made([y])


def pad(m: Maker) -> Single:
    shape, scale, zero = m.image(), m.scale(), m.zero_point()
    around = [(0, 0), *((m.integer(0, 4), m.integer(0, 4)) for _ in range(3))]
    x = m.input(shape, scale, zero)
    y = m.tensor(tuple(n + sum(more) for n, more in zip(shape, around, strict=True)), scale, zero)
    paddings = m.graph.tensor((4, 2), np.int32, data=np.array(around, np.int32))
    m.graph.operator(m.name, [x, paddings], [y], "PadOptions")
    return m.made([y])


def concatenation(m: Maker) -> Single:
    shape, axis, scale, zero = m.image(), m.integer(1, 3), m.scale(), m.zero_point()
    sizes = [m.integer(1, 18) for _ in range(m.integer(2, 4))]
    parts = [m.input((*shape[:axis], size, *shape[axis + 1 :]), scale, zero) for size in sizes]
    y = m.tensor((*shape[:axis], sum(sizes), *shape[axis + 1 :]), scale, zero)
    m.graph.operator(m.name, parts, [y], "ConcatenationOptions", axis=axis)
    return m.made([y])


def mean(m: Maker) -> Single:
    shape, scale = m.image(), m.scale()
    axes = m.choose(((1, 2), (1,), (2,)))
    kept = tuple(1 if axis in axes else n for axis, n in enumerate(shape))
    x, y = m.input(shape, scale, m.zero_point()), m.tensor(kept, scale * m.scale(-2, 1), m.zero_point())
    m.graph.operator(m.name, [x, m.integers(*axes)], [y], "ReducerOptions", keepDims=True)
    return m.made([y])


def transpose(m: Maker) -> Single:
    shape, scale, zero = m.image(), m.scale(), m.zero_point()
    order = m.choose(((0, 2, 1, 3), (0, 1, 3, 2), (0, 3, 1, 2), (0, 2, 3, 1), (0, 3, 2, 1)))
    x, y = m.input(shape, scale, zero), m.tensor(tuple(shape[axis] for axis in order), scale, zero)
    m.graph.operator(m.name, [x, m.integers(*order)], [y], "TransposeOptions")
    return m.made([y])


def strided_slice(m: Maker) -> Single:
    shape, scale, zero = m.image(2), m.scale(), m.zero_point()
    begin = [0, *(m.integer(0, n - 1) for n in shape[1:])]
    end = [1, *(m.integer(b + 1, n) for b, n in zip(begin[1:], shape[1:], strict=True))]
    strides = [1, m.integer(1, 2), m.integer(1, 2), 1]
    sizes = tuple(-(-(e - b) // s) for b, e, s in zip(begin, end, strides, strict=True))
    x, y = m.input(shape, scale, zero), m.tensor(sizes, scale, zero)
    corners = [m.integers(*begin), m.integers(*end), m.integers(*strides)]
    m.graph.operator(m.name, [x, *corners], [y], "StridedSliceOptions")
    return m.made([y])


BUILDERS: dict[str, tuple[Callable[[Maker], Single], tuple[DType, ...]]] = {
    "CONV_2D": (convolution, ALL),
    "DEPTHWISE_CONV_2D": (convolution, ALL),
    "TRANSPOSE_CONV": (transposed_convolution, ALL),
    "FULLY_CONNECTED": (fully_connected, ALL),
    "MAX_POOL_2D": (pool, ALL),
    "AVERAGE_POOL_2D": (pool, ALL),
    "ADD": (binary, ALL),
    "SUB": (binary, ALL),
    "MUL": (binary, ALL),
    "MINIMUM": (binary, ALL),
    "MAXIMUM": (binary, ALL),
    "SQUARED_DIFFERENCE": (binary, SIGNED),
    "LEAKY_RELU": (unary, ALL),
    "LOGISTIC": (unary, ALL),
    "TANH": (unary, ALL),
    "SOFTMAX": (unary, ALL),
    "HARD_SWISH": (unary, (INT8, UINT8)),
    "RELU": (unary, SIGNED),
    "ABS": (unary, SIGNED),
    "QUANTIZE": (requantize, ALL),
    "RESIZE_BILINEAR": (resize, ALL),
    "RESIZE_NEAREST_NEIGHBOR": (resize, ALL),
    "PAD": (pad, ALL),
    "CONCATENATION": (concatenation, ALL),
    "MEAN": (mean, ALL),
    "TRANSPOSE": (transpose, SIGNED),  # of uint8 Vela 5.2.0 makes streams that clamp to 0..127
    "STRIDED_SLICE": (strided_slice, ALL),
}


@st.composite
def single(draw: Callable[[st.SearchStrategy[Any]], Any], name: str, dtype: DType) -> Single:
    """A network of that one operator on activations of that type."""
    return BUILDERS[name][0](Maker(draw, name, dtype))
