# SPDX-License-Identifier: Apache-2.0
"""A network's inputs and outputs as callers see them, and what may be put into them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from npubox.errors import InputError
from npubox.formats.network import Tensor

NUMERIC = "biuf"  # dtype kinds


@dataclass(frozen=True)
class TensorInfo:
    """One input or output. real = scale * (stored - zero_point); both None where it is not quantised."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float | None
    zero_point: int | None

    @classmethod
    def of(cls, tensor: Tensor) -> TensorInfo:
        quantization = tensor.quantization
        if quantization is None or not quantization.per_tensor:
            return cls(tensor.name, tensor.shape, tensor.dtype, None, None)
        scale, zero_point = quantization.scales[0], quantization.zero_points[0]
        return cls(tensor.name, tensor.shape, tensor.dtype, scale, zero_point)

    def __str__(self) -> str:
        return f"{self.name!r} ({self.dtype} {list(self.shape)})"

    def quantise(self, real: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Store `real` as TFLite's QUANTIZE does: round(x / scale), half away from zero, + zero point,
        clamped to the dtype. Raises InputError where there is no scale, or for a NaN."""
        if self.scale is None or self.zero_point is None:
            raise InputError(
                f"input {self} has no scale and zero point: give {self.dtype} values, not {real.dtype}"
            )
        if np.isnan(real).any():
            raise InputError(f"the values for input {self} contain NaN, which has no {self.dtype} value")
        steps = (real.astype(np.float32) / np.float32(self.scale)).astype(np.float64)
        rounded = np.copysign(np.floor(np.abs(steps) + 0.5), steps) + self.zero_point
        limits = np.iinfo(self.dtype)
        stored: npt.NDArray[Any] = np.clip(rounded, limits.min, limits.max).astype(self.dtype)
        return stored

    def dequantise(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """The real values of `stored`, float32. Raises InputError where there is no scale."""
        if self.scale is None or self.zero_point is None:
            raise InputError(f"{self} has no scale and zero point")
        return ((stored.astype(np.float64) - self.zero_point) * self.scale).astype(np.float32)

    def accept(self, value: npt.ArrayLike) -> npt.NDArray[Any]:
        """`value` as the network stores it: integers must match exactly, floats are quantised. Raises
        InputError for what is not numeric, or does not fit."""
        array = _array(value)
        if array is None or array.dtype.kind not in NUMERIC:
            what = type(value).__name__ if array is None or not isinstance(value, np.ndarray) else array.dtype
            raise InputError(f"input {self} got {what}, which is not numeric: give an array of numbers")
        if array.shape != self.shape:
            raise InputError(f"input {self} got shape {list(array.shape)}: give exactly {list(self.shape)}")
        if array.dtype == self.dtype:
            return array
        if array.dtype.kind != "f":
            raise InputError(
                f"input {self} got {array.dtype}: give {self.dtype}, or float values to quantise"
            )
        if self.dtype.kind == "f":
            return array.astype(self.dtype)
        return self.quantise(array)


def _array(value: npt.ArrayLike) -> npt.NDArray[Any] | None:
    """None for what numpy makes no array of, such as lists of unequal lengths."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError):
        return None


def accept_all(inputs: Sequence[TensorInfo], values: Sequence[npt.ArrayLike]) -> list[npt.NDArray[Any]]:
    """Check `values` against `inputs` one by one. Raises InputError naming the first that does not fit."""
    if len(values) != len(inputs):
        expected = ", ".join(map(str, inputs))
        raise InputError(f"the network takes {len(inputs)} input(s) and got {len(values)}: give {expected}")
    return [info.accept(value) for info, value in zip(inputs, values, strict=True)]
