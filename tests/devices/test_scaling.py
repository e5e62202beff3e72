# SPDX-License-Identifier: Apache-2.0
"""Scaling of values too wide for a 64-bit product, against Python's integers."""

from __future__ import annotations

import numpy as np
import pytest

from npubox.devices.ethosu_npu.kernels import plain


def exact(v: int, scale: int, shift: int, rounding: int) -> int:
    """§6 of the facts, with d = 0."""
    half = 1 << (shift - 1) if shift else 0
    extra = 1 << 30 if rounding == 0 and shift > 31 else 0
    return (v * scale + (half + extra if v >= 0 else half - extra)) >> shift


@pytest.mark.parametrize("rounding", [0, 2])
@pytest.mark.parametrize("scale", [-(1 << 31), -1, -1234567891, 1, 1234567891, (1 << 31) - 1])
@pytest.mark.parametrize("shift", [1, 15, 31, 32, 40, 62])
def test_leaky_relu_of_32_bit_values(scale: int, shift: int, rounding: int) -> None:
    values = [-1, -3, -(1 << 30), -(1 << 30) - 1, -(1 << 31) + 5, -(1 << 31)]
    first = np.array(values, np.int64).reshape(1, 1, -1)
    out = np.empty_like(first)
    inputs = np.zeros(5, np.int64)
    code = plain.elementwise(first, first, 0, 0, 0, plain.LRELU, inputs, rounding, scale, shift, out)
    assert code == 0
    assert out.reshape(-1).tolist() == [exact(v, scale, shift, rounding) for v in values]
