# SPDX-License-Identifier: Apache-2.0
"""The committed networks: what each is compared with and why, and which are special."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.corpus.oracles import LITERT_OPTIMISED, LITERT_REF, PLAIN, TFLITE_MICRO

Array = npt.NDArray[Any]

DIRECTORY = Path(__file__).parent / "networks"
NAMES = tuple(sorted(path.stem for path in DIRECTORY.glob("*.tflite")))

MULTIPLY_16 = (
    "tflite-micro rounds a few int16 products the other way; all kernels of LiteRT agree with the NPU"
)
SUM_8 = "tflite-micro's int8 SUM is off by one in places, LiteRT's reference kernel wrong"
NO_KERNEL = "tflite-micro has no such kernel"
NOT_WHOLE = "Vela 5.2.0 emits a stream that is not the network"

# Everything else is compared with tflite-micro, whose kernels the NPU reproduces (facts, ethosu-npu.md §12).
OTHER_ORACLES: dict[str, tuple[str, str]] = {
    "bilinear_x2_int16": (LITERT_REF, NO_KERNEL),
    "exp_int16": (LITERT_REF, NO_KERNEL),
    "exp_int8": (LITERT_REF, NO_KERNEL),
    "gelu_approximate_int8": (LITERT_REF, NO_KERNEL),
    "gelu_int16": (LITERT_REF, NO_KERNEL),
    "gelu_int8": (LITERT_REF, NO_KERNEL),
    "log_int16": (LITERT_REF, NO_KERNEL),
    "log_int8": (LITERT_REF, NO_KERNEL),
    "mirror_pad_int16": (LITERT_REF, NO_KERNEL),
    "mixed_sqrt_int8": (LITERT_REF, NO_KERNEL),
    "mul_column_int16": (LITERT_REF, MULTIPLY_16),
    "mul_int16": (LITERT_REF, MULTIPLY_16),
    "mul_square_int16": (LITERT_REF, MULTIPLY_16),
    "prelu_int16": (LITERT_REF, MULTIPLY_16),
    "relu6_int16": (LITERT_REF, "tflite-micro clamps RELU6 wrongly where input and output scales differ"),
    "relu6_int8": (LITERT_REF, "tflite-micro clamps RELU6 wrongly where input and output scales differ"),
    "relu_n1_to_1_int8": (LITERT_REF, NO_KERNEL),
    "rsqrt_int16": (LITERT_REF, "tflite-micro's table for int16 RSQRT is not exact"),
    "sum_c_int8": (LITERT_OPTIMISED, SUM_8),
    "sum_h_int8": (LITERT_OPTIMISED, SUM_8),
    "sum_hw_int8": (PLAIN, f"{NOT_WHOLE}: it sums over one of the two axes"),
    "sum_w_int8": (LITERT_OPTIMISED, SUM_8),
    "tile_int8": (LITERT_OPTIMISED, "neither tflite-micro nor LiteRT's reference takes TILE of int8"),
}


@dataclass(frozen=True)
class Case:
    """A network and its vectors: `inputs[i]` and `outputs[i]` hold tensor i of all vectors, stacked.

    `outputs` is empty where the oracle is the plain interpreter, which depends on the compiled stream.
    """

    name: str
    content: bytes
    oracle: str
    inputs: list[Array]
    outputs: list[Array]

    @property
    def vectors(self) -> int:
        return len(self.inputs[0])

    def vector(self, k: int) -> list[Array]:
        return [tensor[k] for tensor in self.inputs]


def oracle_of(name: str) -> str:
    return OTHER_ORACLES.get(name, (TFLITE_MICRO, ""))[0]


def content_of(name: str) -> bytes:
    return (DIRECTORY / f"{name}.tflite").read_bytes()


def load(name: str) -> Case:
    with np.load(DIRECTORY / f"{name}.npz") as stored:
        inputs, outputs = (
            [stored[f"{kind}{i}"] for i in range(sum(key.startswith(kind) for key in stored))]
            for kind in ("input", "output")
        )
        return Case(name, content_of(name), str(stored["oracle"]), inputs, outputs)


def store(case: Case) -> None:
    arrays: dict[str, Any] = {f"input{i}": array for i, array in enumerate(case.inputs)}
    arrays |= {f"output{i}": array for i, array in enumerate(case.outputs)}
    np.savez_compressed(DIRECTORY / f"{case.name}.npz", oracle=case.oracle, **arrays)


# What Vela 5.2.0 leaves to the CPU, by network; all other networks are wholly on the NPU.
MIXED: dict[str, tuple[str, ...]] = {
    "attention_int16": ("BATCH_MATMUL", "BATCH_MATMUL"),
    "conv_stride_4_int8": ("CONV_2D",),
    "gelu_int16": ("GELU",),
    "log_softmax_int8": ("LOG_SOFTMAX",),
    "matmul_int16": ("BATCH_MATMUL",),
    "mean_all_int8": ("MEAN",),
    "mean_c_int16": ("MEAN",),
    "mean_c_int8": ("MEAN",),
    "mixed_depth_to_space_int8": ("DEPTH_TO_SPACE",),
    "mixed_div_int8": ("DIV",),
    "mixed_gather_int8": ("GATHER",),
    "mixed_space_to_depth_int8": ("SPACE_TO_DEPTH",),
    "mixed_sqrt_int8": ("SQRT",),
    "reverse_h_int8": ("REVERSE_V2",),
}

# Of those: LiteRT has no reference kernel for this version of the operator, but an optimised one.
OPTIMISED_KERNELS = {"mixed_depth_to_space_int8": ("DEPTH_TO_SPACE",)}

# Refused by the device: NOT_WHOLE. The stream of REDUCE_MAX over channels (MIN over columns) reads a
# part of its input and has max pool windows of padding alone.
REFUSED = ("reduce_max_c_int8", "reduce_min_w_int8")

# Refused by mainline's driver, which takes no negative stride; the hardware does.
NEGATIVE_STRIDES = ("mirror_pad_int16", "mirror_pad_int8", "mirror_pad_symmetric_int8")

# Of the subset below: what the legacy core compiles to pools without a scale region, which mainline's
# driver refuses, and what it leaves to the CPU.
LEGACY_WITHOUT_SCALES = (
    "avg_pool_3_same_int8",
    "bilinear_x2_int8",
    "max_pool_3_same_int16",
    "softmax_int16",
    "softmax_rows_int8",
)
LEGACY_ON_CPU = ("matmul_int8",)

WHOLE = tuple(name for name in NAMES if name not in {*MIXED, *REFUSED})

# One or two of every kind of operation: for the configurations and memory modes that do not run everything.
SUBSET = (
    "add_channels_int16",
    "add_different_scales_int8",
    "avg_pool_3_same_int8",
    "bilinear_x2_int8",
    "cascade_int8",
    "classifier_uint8",
    "concat_c_int8",
    "conv_1x1_stride_2_int8",
    "conv_3x3_int16",
    "conv_3x3_int8",
    "conv_3x3_valid_int16",
    "conv_9x11_one_channel_int8",
    "conv_dilation_3x2_int8",
    "conv_many_channels_int16",
    "conv_many_channels_int8",
    "conv_stride_3_int8",
    "dense_batch_int16",
    "dense_deep_int8",
    "depthwise_17x17_int8",
    "depthwise_3x3_int16",
    "depthwise_5x5_int8",
    "depthwise_dilation_2_int8",
    "depthwise_from_one_int8",
    "dscnn_int8",
    "hard_swish_int8",
    "inception_int8",
    "leaky_relu_int16",
    "lstm_int8",
    "matmul_int8",
    "max_pool_3_same_int16",
    "mean_hw_int8",
    "mul_int8",
    "residual_int8",
    "sigmoid_int16",
    "softmax_int16",
    "softmax_rows_int8",
    "sub_broadcast_first_int8",
    "tanh_int16",
    "transposed_stride_2_int8",
    "unet_int8",
)
