# SPDX-License-Identifier: Apache-2.0
"""MobileNetV1 and V2 1.0 224 quantised to uint8, as TensorFlow 1 made them: the real layers, random weights.

Trained files are no part of the project; time and cycles depend on shapes and hardly weights. One scale and
zero point a tensor, weights too; the classifier is a 1x1 convolution, without softmax.
"""

from __future__ import annotations

import math

import numpy as np
from tests.corpus.graph import Graph

SIZE, CLASSES = 224, 1001
NONE, RELU6, SAME, VALID = 0, 3, 0, 1  # as the schema numbers them
INPUT_SCALE, RELU6_SCALE, LINEAR_SCALE = 1 / 128, 6 / 255, 1 / 16
V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class _Builder:
    """Adds layer after layer to `x`, a feature map of `size` x `size` x `depth`."""

    def __init__(self, seed: int) -> None:
        self.graph = Graph()
        self.random = np.random.default_rng(seed)
        self.size, self.depth, self.scale, self.zero = SIZE, 3, INPUT_SCALE, 128
        self.x = self.input = self.graph.tensor((1, SIZE, SIZE, 3), np.uint8, self.scale, self.zero)

    def convolution(self, channels: int, kernel: int = 1, stride: int = 1, relu6: bool = True) -> None:
        shape = (channels, kernel, kernel, self.depth)
        self._weighted(
            "CONV_2D", "Conv2DOptions", shape, channels, kernel * kernel * self.depth, stride, relu6
        )

    def depthwise(self, stride: int) -> None:
        shape = (1, 3, 3, self.depth)
        self._weighted("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions", shape, self.depth, 9, stride, True)

    def _weighted(
        self,
        name: str,
        options: str,
        shape: tuple[int, ...],
        channels: int,
        products: int,
        stride: int,
        relu6: bool,
    ) -> None:
        spread = math.sqrt(2 / products)  # keeps the variance from layer to layer
        weight_scale = spread / 40
        data = np.clip(np.rint(self.random.normal(128, 40, shape)), 0, 255)
        weights = self.graph.tensor(shape, np.uint8, weight_scale, 128, data)
        bias_scale = self.scale * weight_scale
        bias_data = np.rint(self.random.normal(0, 0.2, channels) / bias_scale)
        bias = self.graph.tensor((channels,), np.int32, bias_scale, 0, bias_data)
        inputs = [self.x, weights, bias]
        self.size, self.depth = -(-self.size // stride), channels
        self.scale, self.zero = (RELU6_SCALE, 0) if relu6 else (LINEAR_SCALE, 128)
        self.x = self._output()
        more = {"depthMultiplier": 1} if name.startswith("DEPTHWISE") else {}
        activation = RELU6 if relu6 else NONE
        self.graph.operator(
            name,
            inputs,
            [self.x],
            options,
            padding=SAME,
            strideH=stride,
            strideW=stride,
            dilationHFactor=1,
            dilationWFactor=1,
            fusedActivationFunction=activation,
            **more,
        )

    def add(self, other: int) -> None:
        inputs = [other, self.x]
        self.x = self._output()
        self.graph.operator("ADD", inputs, [self.x], "AddOptions")

    def average(self) -> None:
        inputs, size = [self.x], self.size
        self.size = 1
        self.x = self._output()
        self.graph.operator(
            "AVERAGE_POOL_2D",
            inputs,
            [self.x],
            "Pool2DOptions",
            padding=VALID,
            strideH=1,
            strideW=1,
            filterHeight=size,
            filterWidth=size,
        )

    def _output(self) -> int:
        return self.graph.tensor((1, self.size, self.size, self.depth), np.uint8, self.scale, self.zero)

    def content(self) -> bytes:
        return self.graph.content([self.input], [self.x])


def mobilenet_v1() -> bytes:
    """The .tflite: 28 convolutions, average, classifier; 569 MMAC."""
    made = _Builder(1)
    made.convolution(32, 3, 2)
    for channels, stride in V1:
        made.depthwise(stride)
        made.convolution(channels)
    made.average()
    made.convolution(CLASSES, relu6=False)
    return made.content()


def mobilenet_v2() -> bytes:
    """The .tflite: 17 inverted residuals between two convolutions, average, classifier; 300 MMAC."""
    made = _Builder(2)
    made.convolution(32, 3, 2)
    for expansion, channels, times, first_stride in V2:
        for n in range(times):
            stride, start, depth = first_stride if n == 0 else 1, made.x, made.depth
            if expansion > 1:
                made.convolution(depth * expansion)
            made.depthwise(stride)
            made.convolution(channels, relu6=False)
            if stride == 1 and depth == channels:
                made.add(start)
    made.convolution(1280)
    made.average()
    made.convolution(CLASSES, relu6=False)
    return made.content()
