# SPDX-License-Identifier: Apache-2.0
"""Inputs with the outputs to expect, as their oracles gave them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.networks import MODELS, shared_network

Array = npt.NDArray[Any]

DIGITS = Path(__file__).parents[1] / "examples" / "digits"


@dataclass(frozen=True)
class Vector:
    """One inference from fresh state: arrays in the network's order, dtype and shape."""

    inputs: list[Array]
    outputs: list[Array]


def shared_vectors(name: str) -> list[Vector]:
    """All vectors stored beside a shared network; skips where the folder is absent."""
    shared_network(name)
    with np.load(MODELS / f"{name}.npz") as stored:
        numbers = sorted({int(key.partition("_")[2]) for key in stored if key.startswith("input")})
        return [Vector(_arrays(stored, "input", k), _arrays(stored, "output", k)) for k in numbers]


def digits_vectors(count: int) -> list[Vector]:
    """The first pictures of the digits network's test split with tflite-micro's answers."""
    with np.load(DIGITS / "test.npz") as stored:
        inputs, expected = stored["inputs"], stored["expected"]
    return [Vector([inputs[i : i + 1]], [expected[i : i + 1]]) for i in range(count)]


def _arrays(stored: Any, kind: str, number: int) -> list[Array]:
    count = sum(key.startswith(kind) and key.endswith(f"_{number}") for key in stored)
    return [stored[f"{kind}{i}_{number}"] for i in range(count)]
