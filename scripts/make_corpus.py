# SPDX-License-Identifier: Apache-2.0
"""Make the small networks of tests/corpus/networks with TensorFlow (the extra `train`).

    python scripts/make_corpus.py [NAME ...]

Each network's weights and calibration data follow from its name alone; TensorFlow 2.21 made the committed
files, and its converter gives gru_int8 and lstm_int8 other bytes at each run. Afterwards
`python -m tests.corpus.make_vectors` stores inputs and the reference kernels' outputs beside them.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

DIRECTORY = Path(__file__).parents[1] / "tests" / "corpus" / "networks"
CALIBRATION_SAMPLES = 12
WEIGHT_SPREAD = 0.4

Shape = tuple[int, ...]
S: Shape = (1, 12, 10, 8)
T: Shape = (1, 11, 9, 5)


@dataclass(frozen=True)
class Definition:
    """`build` makes the outputs from weights and inputs; `spreads` scale each input's calibration data."""

    shapes: Sequence[Shape]
    build: Callable[..., Any]
    kinds: tuple[str, ...]
    spreads: Sequence[float]


NETWORKS: dict[str, Definition] = {}


def net(
    name: str,
    shapes: Shape | list[Shape],
    build: Callable[..., Any],
    kinds: str = "int8",
    spreads: Sequence[float] = (),
) -> None:
    """Define a network, in every kind of `kinds`: int8, int16 (activations) or uint8 (at the edges)."""
    listed = shapes if isinstance(shapes, list) else [shapes]
    assert name not in NETWORKS
    NETWORKS[name] = Definition(listed, build, tuple(kinds.split()), spreads or [1.0] * len(listed))


class Weights:
    """Layers with random weights."""

    def __init__(self, name: str) -> None:
        self.random = np.random.default_rng(zlib.crc32(name.encode()))

    def draw(self, *shape: int) -> Any:
        return tf.constant(self.random.normal(0, WEIGHT_SPREAD, shape).astype(np.float32))

    def conv(
        self,
        x: Any,
        channels: int,
        size: int | tuple[int, int] = 3,
        stride: int | tuple[int, int] = 1,
        pad: str = "SAME",
        dilation: int | tuple[int, int] = 1,
        bias: bool = True,
    ) -> Any:
        y = tf.nn.conv2d(
            x, self.draw(*pair(size), x.shape[3], channels), pair(stride), pad, "NHWC", pair(dilation)
        )
        return y + self.draw(channels) if bias else y

    def depthwise(
        self,
        x: Any,
        size: int | tuple[int, int] = 3,
        stride: int = 1,
        pad: str = "SAME",
        dilation: int = 1,
        multiplier: int = 1,
    ) -> Any:
        kernel = self.draw(*pair(size), x.shape[3], multiplier)
        y = tf.nn.depthwise_conv2d(x, kernel, (1, stride, stride, 1), pad, "NHWC", pair(dilation))
        return y + self.draw(x.shape[3] * multiplier)

    def transposed(self, x: Any, channels: int, size: int, stride: tuple[int, int], pad: str = "SAME") -> Any:
        more = 0 if pad == "SAME" else size
        height, width = (
            n * s if pad == "SAME" else (n - 1) * s + more for n, s in zip(x.shape[1:3], stride, strict=True)
        )
        kernel = self.draw(size, size, channels, x.shape[3])
        return tf.nn.conv2d_transpose(x, kernel, (1, height, width, channels), stride, pad) + self.draw(
            channels
        )

    def dense(self, x: Any, units: int, bias: bool = True) -> Any:
        y = tf.matmul(x, self.draw(x.shape[-1], units))
        return y + self.draw(units) if bias else y


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


BOTH, ALL = "int8 int16", "int8 int16 uint8"
relu, relu6 = tf.nn.relu, tf.nn.relu6


def hard_swish(x: Any) -> Any:
    return x * relu6(x + 3) * (1 / 6)


def convolutions() -> None:
    net("conv_1x1", S, lambda w, x: w.conv(x, 19, 1), ALL)
    net("conv_3x3", S, lambda w, x: w.conv(x, 19, 3), ALL)
    net("conv_3x3_valid", S, lambda w, x: w.conv(x, 16, 3, pad="VALID"), BOTH)
    net("conv_5x5", S, lambda w, x: w.conv(x, 9, 5))
    net("conv_7x1", S, lambda w, x: w.conv(x, 11, (7, 1)))
    net("conv_1x7", S, lambda w, x: w.conv(x, 11, (1, 7)), BOTH)
    net("conv_9x11_one_channel", (1, 20, 20, 1), lambda w, x: w.conv(x, 5, (9, 11)))
    net("conv_stride_2", S, lambda w, x: relu(w.conv(x, 12, 3, 2)), ALL)
    net("conv_stride_3", (1, 17, 14, 5), lambda w, x: w.conv(x, 9, (3, 5), 3, "VALID"), BOTH)
    net("conv_stride_2x1", (1, 13, 12, 5), lambda w, x: w.conv(x, 9, 3, (2, 1)))
    net("conv_stride_1x3", (1, 13, 12, 5), lambda w, x: w.conv(x, 9, 3, (1, 3)))
    net("conv_stride_4", (1, 17, 16, 3), lambda w, x: w.conv(x, 9, 4, 4))
    net("conv_1x1_stride_2", (1, 11, 9, 16), lambda w, x: w.conv(x, 8, 1, 2))
    net("conv_dilation_2", S, lambda w, x: relu6(w.conv(x, 16, 3, dilation=2)), BOTH)
    net("conv_dilation_3x2", (1, 15, 13, 4), lambda w, x: w.conv(x, 6, 3, dilation=(3, 2)))
    net("conv_dilation_4_1d", (1, 1, 40, 6), lambda w, x: w.conv(x, 7, (1, 3), dilation=(1, 4)))
    net("conv_one_in", (1, 14, 14, 1), lambda w, x: w.conv(x, 24, 5, pad="VALID"), BOTH)
    net("conv_one_out", S, lambda w, x: w.conv(x, 1, 3))
    net("conv_many_channels", (1, 6, 6, 100), lambda w, x: w.conv(x, 37, 1), BOTH)
    net("conv_no_bias", S, lambda w, x: w.conv(x, 8, 3, bias=False))
    net("conv_relu_n1_to_1", S, lambda w, x: tf.clip_by_value(w.conv(x, 8), -1.0, 1.0))
    net("conv_relu6", S, lambda w, x: relu6(w.conv(x, 8)))
    net(
        "conv_causal_1d",
        (1, 30, 1, 6),
        lambda w, x: w.conv(tf.pad(x, ((0, 0), (4, 0), (0, 0), (0, 0))), 11, (5, 1), pad="VALID"),
        BOTH,
    )
    net(
        "conv_explicit_padding",
        S,
        lambda w, x: w.conv(tf.pad(x, ((0, 0), (1, 2), (2, 0), (0, 0))), 9, 4, pad="VALID"),
    )
    net("conv_whole_image", (1, 7, 5, 6), lambda w, x: w.conv(x, 10, (7, 5), pad="VALID"))
    net("depthwise_3x3", S, lambda w, x: w.depthwise(x), ALL)
    net("depthwise_stride_2", (1, 13, 13, 24), lambda w, x: relu6(w.depthwise(x, 3, 2)), BOTH)
    net("depthwise_stride_3", (1, 13, 14, 9), lambda w, x: w.depthwise(x, 4, 3, "VALID"))
    net("depthwise_dilation_2", (1, 13, 13, 9), lambda w, x: w.depthwise(x, pad="VALID", dilation=2))
    net("depthwise_5x5", (1, 10, 10, 17), lambda w, x: w.depthwise(x, 5), BOTH)
    net("depthwise_1x9", (1, 3, 20, 6), lambda w, x: w.depthwise(x, (1, 9)))
    net("depthwise_17x17", (1, 20, 20, 2), lambda w, x: w.depthwise(x, 17, pad="VALID"))
    net("depthwise_from_one", (1, 10, 10, 1), lambda w, x: w.depthwise(x, multiplier=8), BOTH)
    net("depthwise_multiplier_2", (1, 8, 8, 3), lambda w, x: w.depthwise(x, multiplier=2))
    net("transposed_stride_2", (1, 6, 7, 8), lambda w, x: w.transposed(x, 12, 3, (2, 2)), BOTH)
    net("transposed_valid", (1, 5, 5, 3), lambda w, x: w.transposed(x, 4, 2, (2, 2), "VALID"), BOTH)
    net("transposed_4x4", (1, 5, 6, 5), lambda w, x: w.transposed(x, 6, 4, (2, 2)))
    net("transposed_stride_1", (1, 5, 6, 5), lambda w, x: w.transposed(x, 6, 3, (1, 1)))
    net("dense", (1, 50), lambda w, x: relu(w.dense(x, 33)), ALL)
    net("dense_deep", (1, 300), lambda w, x: w.dense(x, 10), BOTH)
    net("dense_batch", (4, 24), lambda w, x: w.dense(x, 10), BOTH)
    net("dense_one", (1, 24), lambda w, x: w.dense(x, 1))
    net("dense_no_bias", (1, 24), lambda w, x: w.dense(x, 7, bias=False))
    net("dense_3d", (1, 5, 24), lambda w, x: w.dense(x, 10))


def pools() -> None:
    net("max_pool_2", S, lambda w, x: tf.nn.max_pool2d(x, 2, 2, "VALID"), ALL)
    net("max_pool_3_same", T, lambda w, x: tf.nn.max_pool2d(x, 3, 2, "SAME"), BOTH)
    net("max_pool_4x3_stride_1", T, lambda w, x: tf.nn.max_pool2d(x, (4, 3), 1, "SAME"))
    net("max_pool_20", (1, 24, 22, 3), lambda w, x: tf.nn.max_pool2d(x, 20, 1, "VALID"))
    net("avg_pool_2", S, lambda w, x: tf.nn.avg_pool2d(x, 2, 2, "VALID"), ALL)
    net("avg_pool_3_same", T, lambda w, x: tf.nn.avg_pool2d(x, 3, 1, "SAME"), BOTH)
    net("avg_pool_3_same_stride_2", T, lambda w, x: tf.nn.avg_pool2d(x, 3, 2, "SAME"), BOTH)
    net("avg_pool_5x2_stride_3", T, lambda w, x: tf.nn.avg_pool2d(x, (5, 2), 3, "VALID"))
    net("avg_pool_whole", (1, 9, 11, 6), lambda w, x: tf.nn.avg_pool2d(x, (9, 11), 1, "VALID"), BOTH)
    net("avg_pool_20", (1, 24, 22, 3), lambda w, x: tf.nn.avg_pool2d(x, 20, 1, "VALID"))
    net("mean_hw", (1, 9, 9, 20), lambda w, x: tf.reduce_mean(x, (1, 2)), ALL)
    net("mean_hw_kept", (1, 7, 8, 5), lambda w, x: tf.reduce_mean(x, (1, 2), keepdims=True))
    net("mean_h", S, lambda w, x: tf.reduce_mean(x, 1, keepdims=True))
    net("mean_w", S, lambda w, x: tf.reduce_mean(x, 2), BOTH)
    net("mean_c", S, lambda w, x: tf.reduce_mean(x, -1, keepdims=True), BOTH)
    net("mean_all", (1, 6, 5, 4), lambda w, x: tf.reduce_mean(x, (1, 2, 3)))
    net("mean_large", (1, 40, 48, 2), lambda w, x: tf.reduce_mean(x, (1, 2)))
    net("sum_c", S, lambda w, x: tf.reduce_sum(x, -1), BOTH)
    net("sum_hw", (1, 6, 5, 4), lambda w, x: tf.reduce_sum(x, (1, 2)))
    net("sum_h", (1, 6, 5, 4), lambda w, x: tf.reduce_sum(x, 1), BOTH)
    net("sum_w", (1, 6, 5, 4), lambda w, x: tf.reduce_sum(x, 2))
    net("reduce_max_h", S, lambda w, x: tf.reduce_max(x, 1))
    net("reduce_min_hw", S, lambda w, x: tf.reduce_min(x, (1, 2)))
    net("reduce_max_1d", (1, 40), lambda w, x: tf.reduce_max(x, -1))
    net("reduce_max_c", S, lambda w, x: tf.reduce_max(x, -1))
    net("reduce_max_hw", S, lambda w, x: tf.reduce_max(x, (1, 2)))
    net("reduce_min_w", S, lambda w, x: tf.reduce_min(x, 2))
    net("argmax_c", (1, 4, 4, 10), lambda w, x: tf.argmax(x, -1, output_type=tf.int32))


def binary_elementwise() -> None:
    c, row, one = (1, 1, 1, 8), (1, 1, 10, 1), (1, 1, 1, 1)
    net("add", [S, S], lambda w, a, b: a + b, ALL, (1.0, 1.0))
    net("add_different_scales", [S, S], lambda w, a, b: a + b, BOTH, (0.2, 7.0))
    net("add_relu", [S, S], lambda w, a, b: relu(a + b), BOTH)
    net("add_same_tensor", S, lambda w, x: x + x, BOTH)
    net("add_channels", [S, c], lambda w, a, b: a + b, ALL, (1.0, 3.0))
    net("add_row_and_column", [(1, 12, 1, 8), (1, 1, 10, 8)], lambda w, a, b: a + b, BOTH)
    net("add_one_element", [S, one], lambda w, a, b: a + b)
    net("add_scalar", S, lambda w, x: x + 0.7, BOTH)
    net("add_constant", S, lambda w, x: x + w.draw(12, 10, 8))
    net("add_1d", [(37,), (37,)], lambda w, a, b: a + b)
    net("add_batch", [(3, 4, 5, 6), (3, 4, 5, 6)], lambda w, a, b: a + b)
    net("sub", [S, S], lambda w, a, b: a - b, ALL, (1.0, 2.0))
    net("sub_broadcast_first", [(1, 1, 10, 8), S], lambda w, a, b: a - b, BOTH)
    net("sub_from_scalar", S, lambda w, x: 1.0 - x, BOTH)
    net("mul", [S, S], lambda w, a, b: a * b, ALL, (1.0, 3.0))
    net("mul_relu6", [S, S], lambda w, a, b: relu6(a * b))
    net("mul_column", [S, (1, 12, 1, 1)], lambda w, a, b: a * b, BOTH)
    net("mul_row", [row, S], lambda w, a, b: a * b)
    net("mul_scalar", S, lambda w, x: x * 0.3, BOTH)
    net("mul_square", S, lambda w, x: x * x, BOTH)
    net("squared_difference", [S, S], lambda w, a, b: tf.math.squared_difference(a, b), BOTH)
    net("minimum", [S, S], lambda w, a, b: tf.minimum(a, b), BOTH)
    net("maximum", [S, S], lambda w, a, b: tf.maximum(a, b), BOTH)
    net("maximum_channels", [S, c], lambda w, a, b: tf.maximum(a, b))
    net("minimum_scalar", S, lambda w, x: tf.minimum(x, 0.4))
    net("matmul", [(1, 7, 9), (1, 9, 5)], lambda w, a, b: tf.matmul(a, b), BOTH)
    net("matmul_batch", [(1, 3, 4, 8), (1, 3, 8, 5)], lambda w, a, b: tf.matmul(a, b))
    net("matmul_transposed", [(1, 6, 8), (1, 5, 8)], lambda w, a, b: tf.matmul(a, b, transpose_b=True))


def unary() -> None:
    net("relu", S, lambda w, x: relu(x), ALL)
    net("relu6", S, lambda w, x: relu6(x), BOTH, (4.0,))
    net("relu_n1_to_1", S, lambda w, x: tf.clip_by_value(x, -1.0, 1.0))
    net("relu_0_to_1", S, lambda w, x: tf.clip_by_value(x, 0.0, 1.0))
    net("leaky_relu", S, lambda w, x: tf.nn.leaky_relu(x, 0.2), ALL)
    net("leaky_relu_steep", S, lambda w, x: tf.nn.leaky_relu(x, 0.9))
    net("prelu", S, lambda w, x: relu(x) + w.draw(8) * (x - tf.abs(x)) * 0.5, BOTH)
    net("abs", S, lambda w, x: tf.abs(x), BOTH)
    net("sigmoid", S, lambda w, x: tf.sigmoid(x), ALL, (4.0,))
    net("tanh", S, lambda w, x: tf.tanh(x), ALL, (2.0,))
    net("hard_swish", S, lambda w, x: hard_swish(x), "int8", (3.0,))
    net("gelu", S, lambda w, x: tf.nn.gelu(x), BOTH)
    net("gelu_approximate", S, lambda w, x: tf.nn.gelu(x, approximate=True))
    net("exp", S, lambda w, x: tf.exp(x), BOTH)
    net("log", S, lambda w, x: tf.math.log(relu(x) + 0.5), BOTH)
    net("rsqrt", S, lambda w, x: tf.math.rsqrt(relu(x) + 0.5), BOTH)
    net("softmax", (1, 21), lambda w, x: tf.nn.softmax(x), ALL, (3.0,))
    net("softmax_rows", (1, 5, 40), lambda w, x: tf.nn.softmax(x), BOTH, (3.0,))
    net("softmax_4d", (1, 4, 3, 10), lambda w, x: tf.nn.softmax(x))
    net("softmax_winner_takes_all", (1, 12), lambda w, x: tf.nn.softmax(x), BOTH, (60.0,))
    net("log_softmax", (1, 21), lambda w, x: tf.nn.log_softmax(x))


def shapes() -> None:
    twice = (1, 5, 6, 7)
    bilinear = tf.compat.v1.image.resize_bilinear
    nearest = tf.compat.v1.image.resize_nearest_neighbor
    net("nearest_x2", twice, lambda w, x: nearest(x, (10, 12)), BOTH)
    net("nearest_x2_half_pixel", twice, lambda w, x: tf.image.resize(x, (10, 12), "nearest"))
    net("nearest_align_corners", twice, lambda w, x: nearest(x, (9, 11), align_corners=True))
    net("nearest_x4", twice, lambda w, x: nearest(x, (20, 24)))
    net("bilinear_x2", twice, lambda w, x: bilinear(x, (10, 12)), BOTH)
    net("bilinear_x2_half_pixel", twice, lambda w, x: tf.image.resize(x, (10, 12)))
    net("bilinear_align_corners", twice, lambda w, x: bilinear(x, (9, 11), align_corners=True))
    net("bilinear_x4", twice, lambda w, x: bilinear(x, (20, 24)))
    net("bilinear_from_one", (1, 1, 1, 6), lambda w, x: bilinear(x, (5, 4)))
    net("concat_c", [S, (1, 12, 10, 5)], lambda w, a, b: tf.concat((a, b), -1), ALL, (1.0, 2.0))
    net("concat_h", [S, (1, 3, 10, 8)], lambda w, a, b: tf.concat((a, b), 1), BOTH)
    net("concat_three_w", [S, S, (1, 12, 1, 8)], lambda w, a, b, c: tf.concat((a, b, c), 2))
    net("split_c", S, lambda w, x: tuple(tf.split(x, 2, -1)), BOTH)
    net("split_uneven", S, lambda w, x: tuple(tf.split(x, (3, 4, 5), 1)))
    net("split_and_add", S, lambda w, x: tf.split(x, 2, -1)[1] + tf.split(x, 2, -1)[0])
    net("strided_slice", S, lambda w, x: x[:, 2:9, 1::2, :5], BOTH)
    net("slice", S, lambda w, x: tf.slice(x, (0, 3, 1, 2), (1, 5, 8, 4)))
    net("pad", S, lambda w, x: tf.pad(x, ((0, 0), (1, 2), (3, 0), (0, 0))), BOTH)
    net("pad_channels", S, lambda w, x: tf.pad(x, ((0, 0), (0, 0), (0, 0), (2, 5))))
    net("pad_value", S, lambda w, x: tf.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=0.5))
    net("mirror_pad", S, lambda w, x: tf.pad(x, ((0, 0), (1, 1), (2, 2), (0, 0)), "REFLECT"), BOTH)
    net("mirror_pad_symmetric", S, lambda w, x: tf.pad(x, ((0, 0), (2, 1), (0, 2), (0, 0)), "SYMMETRIC"))
    net("transpose_hw", (1, 6, 7, 8), lambda w, x: tf.transpose(x, (0, 2, 1, 3)), BOTH)
    net("transpose_wc", (1, 6, 7, 8), lambda w, x: tf.transpose(x, (0, 1, 3, 2)))
    net("transpose_chw", (1, 6, 7, 8), lambda w, x: tf.transpose(x, (0, 3, 1, 2)))
    net("reshape_add", (1, 6, 7, 8), lambda w, x: tf.reshape(x, (1, 8, 6, 7)) + 0.25, BOTH)
    net("squeeze_expand", (1, 1, 7, 8), lambda w, x: relu(tf.expand_dims(tf.squeeze(x, 1), 2)))
    net("pack", [(1, 6, 5), (1, 6, 5)], lambda w, a, b: tf.stack((a, b), 1), "int8", (1.0, 2.0))
    net("unpack", (1, 3, 5, 6), lambda w, x: tuple(tf.unstack(x, axis=1)))
    net("reverse_h", S, lambda w, x: tf.reverse(x, [1]))
    net("tile", (1, 3, 4, 5), lambda w, x: tf.tile(x, (1, 2, 3, 1)))


def squeeze_and_excite(w: Weights, x: Any) -> Any:
    gate = relu(w.conv(tf.reduce_mean(x, (1, 2), keepdims=True), 4, 1))
    return x * tf.sigmoid(w.conv(gate, x.shape[3], 1))


def inverted_residual(w: Weights, x: Any) -> Any:
    return x + w.conv(relu6(w.depthwise(relu6(w.conv(x, 24, 1)))), x.shape[3], 1)


def inception(w: Weights, x: Any) -> Any:
    pooled = w.conv(tf.nn.max_pool2d(x, 3, 1, "SAME"), 3, 1)
    return tf.concat((w.conv(x, 4, 1), relu(w.conv(x, 6, 3)), w.conv(w.conv(x, 3, 1), 5, 5), pooled), -1)


def unet(w: Weights, x: Any) -> Any:
    down = relu(w.conv(x, 6))
    bottom = relu(w.conv(tf.nn.max_pool2d(down, 2, 2, "VALID"), 8))
    return w.conv(tf.concat((down, w.transposed(bottom, 6, 2, (2, 2))), -1), 3, 1)


def attention(w: Weights, x: Any) -> Any:
    scores = tf.nn.softmax(tf.matmul(w.dense(x, 6), w.dense(x, 6), transpose_b=True))
    return tf.matmul(scores, w.dense(x, 6))


def gru(w: Weights, x: Any) -> Any:
    units = 6
    state = tf.zeros((1, units))
    for step in tf.unstack(x, axis=1):
        both = tf.concat((step, state), -1)
        update, reset = tf.sigmoid(w.dense(both, units)), tf.sigmoid(w.dense(both, units))
        fresh = tf.tanh(w.dense(tf.concat((step, reset * state), -1), units))
        state = update * state + (1.0 - update) * fresh
    return state


def lstm(w: Weights, x: Any) -> Any:
    units = 5
    state, memory = tf.zeros((1, units)), tf.zeros((1, units))
    kernel, bias = w.draw(x.shape[2] + units, 4 * units), w.draw(4 * units)
    for step in tf.unstack(x, axis=1):
        gates = tf.split(tf.matmul(tf.concat((step, state), -1), kernel) + bias, 4, -1)
        memory = tf.sigmoid(gates[0]) * memory + tf.sigmoid(gates[1]) * tf.tanh(gates[2])
        state = tf.sigmoid(gates[3]) * tf.tanh(memory)
    return state


def whole_networks() -> None:
    net("residual", (1, 10, 10, 8), lambda w, x: relu(x + w.conv(relu(w.conv(x, 8)), 8)), ALL)
    net("inverted_residual", (1, 10, 10, 8), inverted_residual, BOTH)
    net("inception", (1, 10, 10, 8), inception, BOTH)
    net("unet", (1, 12, 12, 3), unet, BOTH)
    net("squeeze_and_excite", (1, 8, 8, 12), squeeze_and_excite, BOTH)
    net("mobilenet_v1_block", (1, 16, 16, 8), lambda w, x: relu6(w.conv(relu6(w.depthwise(x, 3, 2)), 16, 1)))
    net(
        "mobilenet_v3_block",
        (1, 10, 10, 8),
        lambda w, x: (
            x + w.conv(squeeze_and_excite(w, hard_swish(w.depthwise(hard_swish(w.conv(x, 16, 1)), 5))), 8, 1)
        ),
    )
    net(
        "classifier",
        (1, 16, 16, 3),
        lambda w, x: tf.nn.softmax(
            w.dense(tf.reduce_mean(relu(w.conv(relu(w.conv(x, 8, 3, 2)), 12, 3, 2)), (1, 2)), 7)
        ),
        ALL,
    )
    net(
        "cascade",
        (1, 96, 96, 3),
        lambda w, x: w.conv(relu6(w.depthwise(relu6(w.conv(x, 16, 3, 2)))), 8, 3, 2),
    )
    net("autoencoder", (1, 64), lambda w, x: w.dense(relu(w.dense(relu(w.dense(x, 12)), 12)), 64), BOTH)
    net(
        "dscnn",
        (1, 20, 10, 1),
        lambda w, x: tf.nn.softmax(
            w.dense(
                tf.reduce_mean(
                    relu(w.conv(relu(w.depthwise(relu(w.conv(x, 16, (10, 4), 2)))), 16, 1)), (1, 2)
                ),
                12,
            )
        ),
    )
    net("temporal", (1, 1, 32, 4), lambda w, x: relu(w.conv(x, 8, (1, 3), dilation=(1, 2))) + w.conv(x, 8, 1))
    net(
        "two_outputs",
        (1, 8, 8, 6),
        lambda w, x: (w.conv(relu(w.conv(x, 8)), 4, 1), tf.sigmoid(w.conv(x, 2, 3, 2))),
        BOTH,
    )
    net(
        "two_inputs",
        [(1, 8, 8, 4), (1, 4, 4, 4)],
        lambda w, a, b: w.conv(a, 4, 3, 2) + relu(w.conv(b, 4)),
        BOTH,
    )
    net(
        "upsampling_path",
        (1, 6, 6, 8),
        lambda w, x: w.conv(tf.compat.v1.image.resize_nearest_neighbor(relu(w.conv(x, 6)), (12, 12)), 4),
    )
    net("attention", (1, 7, 10), attention, BOTH)
    net("gru", (1, 4, 3), gru, BOTH)
    net("lstm", (1, 4, 3), lstm, BOTH)
    # What Vela leaves partly or wholly on the CPU.
    net(
        "mixed_space_to_depth",
        (1, 8, 8, 4),
        lambda w, x: w.conv(tf.nn.space_to_depth(relu(w.conv(x, 4)), 2), 5),
    )
    net(
        "mixed_depth_to_space",
        (1, 6, 6, 8),
        lambda w, x: w.conv(tf.nn.depth_to_space(relu(w.conv(x, 8)), 2), 5),
    )
    net(
        "mixed_gather",
        (1, 6, 6, 8),
        lambda w, x: w.conv(tf.gather(relu(w.conv(x, 8)), [0, 3, 1, 5], axis=1), 5),
    )
    net("mixed_sqrt", (1, 6, 6, 8), lambda w, x: w.conv(tf.sqrt(relu(w.conv(x, 8))), 5))
    net(
        "mixed_div",
        [(1, 6, 6, 8), (1, 6, 6, 8)],
        lambda w, a, b: w.conv(a, 5) / (tf.sigmoid(w.conv(b, 5)) + 0.5),
    )


def model(name: str, definition: Definition) -> Any:
    """The network as a concrete function of float32 inputs."""
    specs = [tf.TensorSpec(shape, tf.float32, f"input_{i}") for i, shape in enumerate(definition.shapes)]

    def call(*inputs: Any) -> Any:
        outputs = definition.build(Weights(name), *inputs)
        made = outputs if isinstance(outputs, tuple) else (outputs,)
        return {f"output_{i}": tf.identity(output) for i, output in enumerate(made)}

    return tf.function(call, input_signature=specs).get_concrete_function()


def converted(name: str, definition: Definition, kind: str) -> bytes:
    """The network as a fully quantised .tflite."""

    def calibration() -> Iterator[list[Any]]:
        random = np.random.default_rng(zlib.crc32(name.encode()) + 1)
        for _ in range(CALIBRATION_SAMPLES):
            pairs = zip(definition.shapes, definition.spreads, strict=True)
            yield [random.normal(0, spread, shape).astype(np.float32) for shape, spread in pairs]

    converter = tf.lite.TFLiteConverter.from_concrete_functions([model(name, definition)])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = calibration
    int16 = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    converter.target_spec.supported_ops = [int16 if kind == "int16" else tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.as_dtype(kind)
    return bytes(converter.convert())


def main(names: list[str]) -> None:
    for define in (convolutions, pools, binary_elementwise, unary, shapes, whole_networks):
        define()
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for name, definition in NETWORKS.items():
        for kind in definition.kinds:
            if not names or f"{name}_{kind}" in names or name in names:
                (DIRECTORY / f"{name}_{kind}.tflite").write_bytes(converted(name, definition, kind))


if __name__ == "__main__":
    main(sys.argv[1:])
