# SPDX-License-Identifier: Apache-2.0
"""Quantising as TFLite does, and the errors of what cannot be taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from npubox.client import TensorInfo
from npubox.errors import InputError

HALF = TensorInfo("x", (4,), np.dtype(np.int8), 0.5, 3)


def test_half_away_from_zero() -> None:
    real = np.array([0.25, -0.25, 0.75, -0.75], np.float32)
    assert HALF.quantise(real).tolist() == [4, 2, 5, 1]


def test_clamped() -> None:
    real = np.array([1e9, -1e9, np.inf, -np.inf])
    assert HALF.quantise(real).tolist() == [127, -128, 127, -128]


def test_just_below_a_half_rounds_down() -> None:
    below = np.nextafter(np.float32(0.5), np.float32(0))
    unit = TensorInfo("x", (1,), np.dtype(np.int16), 1.0, 0)
    assert unit.quantise(np.array([below])).tolist() == [0]


def test_dequantise_inverts() -> None:
    stored = np.arange(-128, 128, dtype=np.int8)
    info = TensorInfo("x", stored.shape, stored.dtype, 0.0078125, -5)
    assert info.quantise(info.dequantise(stored)).tolist() == stored.tolist()


def test_without_quantisation_floats_are_refused() -> None:
    info = TensorInfo("ids", (1,), np.dtype(np.int32), None, None)
    assert info.accept(np.array([7], np.int32)).tolist() == [7]
    with pytest.raises(InputError, match="no scale"):
        info.accept(np.array([0.5]))


def test_float_input_takes_floats_only() -> None:
    info = TensorInfo("x", (1,), np.dtype(np.float32), None, None)
    assert info.accept(np.array([0.5])).dtype == np.float32
    with pytest.raises(InputError, match="give float32"):
        info.accept(np.array([1]))


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("hello", "str"),
        (None, "NoneType"),
        ({"x": 1}, "dict"),
        ([[1, 2], [3]], "list"),
        (np.array([object()] * 4), "object"),
        (np.array(["1", "2", "3", "4"]), "<U1"),
        (np.zeros(4, np.complex64), "complex64"),
    ],
)
def test_what_is_not_numeric(value: Any, what: str) -> None:
    with pytest.raises(InputError, match=rf"input 'x' \(int8 \[4\]\) got {what}, which is not numeric"):
        HALF.accept(value)
