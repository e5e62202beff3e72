# SPDX-License-Identifier: Apache-2.0
"""The networks at hand, each with one input and the outputs its oracle gave."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import mobilenets

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ROOT / "examples" / "digits"
SHARED = Path(os.environ.get("NPUBOX_SHARED") or ROOT.parent / "shared") / "models"
VECTOR = 3  # of the shared networks' vectors: the first that is neither uniform noise nor an extreme

MADE = {
    "mobilenet_v1_1.0_224_uint8 (random)": mobilenets.mobilenet_v1,
    "mobilenet_v2_1.0_224_uint8 (random)": mobilenets.mobilenet_v2,
}

Arrays = tuple[npt.NDArray[Any], ...]


@dataclass(frozen=True)
class Subject:
    """`path` is the .tflite before Vela; arrays are in its order, shapes and dtypes."""

    name: str
    path: Path
    inputs: Arrays
    expected: Arrays


def at_hand() -> dict[str, Callable[[], Subject]]:
    """By name: the digits network, those of the shared folder where there is one (NPUBOX_SHARED), and
    MobileNets in uint8 that are made on the spot."""
    found: dict[str, Callable[[], Subject]] = {"digits": _digits}
    found |= {path.stem: partial(_shared, path) for path in sorted(SHARED.glob("*.tflite"))}
    return found | {name: partial(_made, name) for name in MADE}


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


def _made(name: str) -> Subject:
    """LiteRT's reference kernels are exact for the operators of uint8 MobileNets."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    content = MADE[name]()
    path = Path(tempfile.mkdtemp(prefix="npubox-benchmark-")) / f"{name.partition(' ')[0]}.tflite"
    path.write_bytes(content)
    atexit.register(shutil.rmtree, path.parent)
    pixels = np.random.default_rng(VECTOR).integers(
        0, 256, (1, mobilenets.SIZE, mobilenets.SIZE, 3), np.uint8
    )
    reference: Any = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    reference.allocate_tensors()
    reference.set_tensor(reference.get_input_details()[0]["index"], pixels)
    reference.invoke()
    return Subject(name, path, (pixels,), (reference.get_tensor(reference.get_output_details()[0]["index"]),))
