# SPDX-License-Identifier: Apache-2.0
"""Which reference kernels are exact for a network: where each is known to differ from the arithmetic of the
NPU, by operator and by the dtype of its output.

Found by comparing every network of tests/corpus on each of them, and in the project's facts,
ethosu-npu.md §12. What is not listed was never seen to differ.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from npubox.formats.network import Network, Operator

TFLITE_MICRO = "tflite-micro"
LITERT_REF = "LiteRT BUILTIN_REF"
LITERT_OPTIMISED = "LiteRT builtin optimised"

RESCALED = ("RELU6",)  # differ only where input and output have different scales

# In the order of preference.
INEXACT: dict[str, frozenset[tuple[str, str]]] = {
    TFLITE_MICRO: frozenset(
        {
            ("LEAKY_RELU", "int16"),  # these five: single values, by 1
            ("MUL", "int16"),
            ("PRELU", "int16"),
            ("RELU", "int16"),
            ("SOFTMAX", "int16"),
            ("RELU6", "int8"),
            ("RELU6", "int16"),
            ("RSQRT", "int16"),
            ("SUM", "int8"),
            ("TFLite_Detection_PostProcess", "float32"),  # takes its outputs' shapes from the file
        }
    ),
    LITERT_REF: frozenset(
        {
            ("FULLY_CONNECTED", "int8"),  # rounds once where the NPU rounds twice
            ("FULLY_CONNECTED", "int16"),
            ("SUM", "int8"),
            ("SUM", "int16"),
        }
    ),
    LITERT_OPTIMISED: frozenset(
        {
            ("ABS", "int16"),
            ("CONV_2D", "int8"),
            ("DEPTHWISE_CONV_2D", "int8"),
            ("FULLY_CONNECTED", "int8"),
            ("FULLY_CONNECTED", "int16"),
            ("TRANSPOSE_CONV", "int8"),
        }
    ),
}


@dataclass(frozen=True)
class Choice:
    """An oracle, and what of the network it is known to get wrong, such as "int16 MUL"."""

    oracle: str
    inexact: tuple[str, ...]


def installed(oracle: str) -> bool:
    """LiteRT is a dependency; tflite-micro has wheels for x86-64 only."""
    return oracle != TFLITE_MICRO or importlib.util.find_spec("tflite_micro") is not None


def choices(network: Network) -> list[Choice]:
    """Every oracle for `network` (as it was before Vela): those without a known difference first."""
    found = [Choice(oracle, _inexact(network, known)) for oracle, known in INEXACT.items()]
    return sorted(found, key=lambda choice: bool(choice.inexact))


def _inexact(network: Network, known: frozenset[tuple[str, str]]) -> tuple[str, ...]:
    """By the output's dtype."""
    found: dict[str, None] = {}
    for operator in network.operators:
        dtype = str(network.tensors[operator.outputs[0]].dtype) if operator.outputs else ""
        if (operator.name, dtype) in known and (
            operator.name not in RESCALED or _rescales(network, operator)
        ):
            found[f"{dtype} {operator.name}"] = None
    return tuple(found)


def _rescales(network: Network, operator: Operator) -> bool:
    source, target = (
        network.tensors[index].quantization for index in (operator.inputs[0], operator.outputs[0])
    )
    if source is None or target is None:
        return source is not target
    return (source.scales, source.zero_points) != (target.scales, target.zero_points)
