# SPDX-License-Identifier: Apache-2.0
"""The networks at hand, each with one input and the outputs its oracle gave."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ROOT / "examples" / "digits"
SHARED = Path(os.environ.get("NPUBOX_SHARED") or ROOT.parent / "shared") / "models"
VECTOR = 3  # of the shared networks' vectors: the first that is neither uniform noise nor an extreme

Arrays = tuple[npt.NDArray[Any], ...]


@dataclass(frozen=True)
class Subject:
    """`path` is the .tflite before Vela; arrays are in its order, shapes and dtypes."""

    name: str
    path: Path
    inputs: Arrays
    expected: Arrays


def at_hand() -> list[Subject]:
    """The digits network, and those of the shared folder where there is one (NPUBOX_SHARED)."""
    return [_digits(), *(_shared(path) for path in sorted(SHARED.glob("*.tflite")))]


def _digits() -> Subject:
    with np.load(DIGITS / "test.npz") as stored:
        return Subject("digits", DIGITS / "digits.tflite", (stored["inputs"][:1],), (stored["expected"][:1],))


def _shared(path: Path) -> Subject:
    with np.load(path.with_suffix(".npz")) as stored:
        inputs, expected = (
            tuple(
                stored[key]
                for key in sorted(stored.files)
                if key.startswith(kind) and key.endswith(f"_{VECTOR}")
            )
            for kind in ("input", "output")
        )
    return Subject(path.stem, path, inputs, expected)
