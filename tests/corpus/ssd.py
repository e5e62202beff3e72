# SPDX-License-Identifier: Apache-2.0
"""A small single-shot detector with random weights: two scales of anchors, box and class heads, and
TFLite_Detection_PostProcess, whose outputs have no shape in the file, as exporters write it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tests.corpus.graph import Graph

SIZE = 32
CLASSES = 5
ANCHORS = 3  # a cell
STRIDES = (4, 8)
FEATURE_SCALE, WEIGHT_SCALE, BOX_SCALE, SCORE_SCALE = 0.05, 0.01, 0.1, 1 / 256
OPTIONS: dict[str, Any] = {
    "max_detections": 7,
    "max_classes_per_detection": 1,
    "detections_per_class": 100,
    "use_regular_nms": False,
    "nms_score_threshold": 0.05,
    "nms_iou_threshold": 0.6,
    "num_classes": CLASSES,
    "y_scale": 10.0,
    "x_scale": 10.0,
    "h_scale": 5.0,
    "w_scale": 5.0,
}


def ssd(dtype: npt.DTypeLike, *, dequantised: bool = False, **options: Any) -> bytes:
    """[1, 32, 32, 3] of uint8 or int8 to boxes, classes, scores and their count; `options` change `OPTIONS`.

    `dequantised`: DEQUANTIZE operators before the detection, as TensorFlow 2 has them.
    """
    net = _Net(np.dtype(dtype))
    graph = net.graph
    x = net.tensor((1, SIZE, SIZE, 3), FEATURE_SCALE, net.middle)
    features = net.convolution(net.convolution(x, 16), 16)
    boxes, scores = [], []
    for _ in STRIDES:
        boxes.append(net.head(features, 4, BOX_SCALE))
        scores.append(net.head(features, CLASSES + 1, FEATURE_SCALE))
        features = net.convolution(features, 24)
    box, logits = net.joined(boxes, BOX_SCALE), net.joined(scores, FEATURE_SCALE)
    score = net.tensor(net.shape(logits), SCORE_SCALE, net.lowest)
    graph.operator("LOGISTIC", [logits], [score])
    if dequantised:
        box, score = net.dequantised(box), net.dequantised(score)
    outputs = [graph.tensor((), np.float32) for _ in range(4)]
    ends = [box, score, net.anchors(dequantised)]
    graph.custom_operator("TFLite_Detection_PostProcess", ends, outputs, OPTIONS | options)
    return graph.content([x], outputs)


class _Net:
    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.graph = Graph()
        self._dtype = dtype
        self.lowest = int(np.iinfo(dtype).min)
        self.middle = self.lowest + 128
        self._random = np.random.default_rng(11)
        self._shapes: dict[int, tuple[int, ...]] = {}

    def shape(self, tensor: int) -> tuple[int, ...]:
        return self._shapes[tensor]

    def tensor(self, shape: tuple[int, ...], scale: float, zero_point: int) -> int:
        made = self.graph.tensor(shape, self._dtype, scale, zero_point)
        self._shapes[made] = shape
        return made

    def convolution(self, source: int, depth: int, *, stride: int = 2, scale: float = FEATURE_SCALE) -> int:
        """3x3, SAME, weights of the network's dtype."""
        _, height, width, channels = self.shape(source)
        data = self._random.integers(self.lowest, self.lowest + 256, (depth, 3, 3, channels))
        middle = self.middle if self._dtype == np.uint8 else 0
        data = np.maximum(data, middle - 127)
        weights = self.graph.tensor(data.shape, self._dtype, WEIGHT_SCALE / channels, middle, data)
        values = self._random.integers(-2000, 2000, depth)
        bias = self.graph.tensor((depth,), np.int32, FEATURE_SCALE * WEIGHT_SCALE / channels, data=values)
        made = self.tensor((1, -(-height // stride), -(-width // stride), depth), scale, self.middle)
        self.graph.operator(
            "CONV_2D",
            [source, weights, bias],
            [made],
            "Conv2DOptions",
            strideH=stride,
            strideW=stride,
            padding=self.graph.schema.Padding.SAME,
        )
        return made

    def head(self, features: int, values: int, scale: float) -> int:
        """[1, anchors of the features, values]."""
        made = self.convolution(features, ANCHORS * values, stride=1, scale=scale)
        _, height, width, _ = self.shape(made)
        flat = self.tensor((1, height * width * ANCHORS, values), scale, self.middle)
        self.graph.operator(
            "RESHAPE", [made], [flat], "ReshapeOptions", newShape=np.array(self.shape(flat), np.int32)
        )
        return flat

    def joined(self, parts: list[int], scale: float) -> int:
        count = sum(self.shape(part)[1] for part in parts)
        made = self.tensor((1, count, self.shape(parts[0])[2]), scale, self.middle)
        self.graph.operator("CONCATENATION", parts, [made], "ConcatenationOptions", axis=1)
        return made

    def dequantised(self, source: int) -> int:
        made = self.graph.tensor(self.shape(source), np.float32)
        self.graph.operator("DEQUANTIZE", [source], [made])
        return made

    def anchors(self, real: bool) -> int:
        """Centre y and x, height and width, all from 0 to 1."""
        rows = []
        for stride in STRIDES:
            centres = (np.arange(SIZE // stride) + 0.5) * stride / SIZE
            for y in centres:
                for x in centres:
                    rows += [(y, x, stride * size / SIZE, stride / SIZE) for size in (1, 2, 3)]
        values = np.array(rows)
        if real:
            return self.graph.tensor(values.shape, np.float32, data=values)
        scale = 1 / 256
        data = np.clip(np.rint(values / scale) + self.lowest, self.lowest, self.lowest + 255)
        return self.graph.tensor(values.shape, self._dtype, scale, self.lowest, data)
