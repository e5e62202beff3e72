# SPDX-License-Identifier: Apache-2.0
"""Read an input file for `npubox run`: .npy, .png, or raw bytes in the tensor's own dtype."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from npubox.client import TensorInfo
from npubox.errors import InputError

Array = npt.NDArray[Any]

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's name by the model's channels
_SPOKEN = {
    "L": "greyscale",
    "RGB": "RGB",
    "RGBA": "RGBA",
    "P": "palette",
    "1": "black and white",
    "LA": "greyscale with alpha",
}
_INT8_OFFSET = 128


@dataclass(frozen=True)
class Pixels:
    """How pixel values v become real ones: (v - mean) * scale; both None keeps the stored values."""

    mean: float | None
    scale: float | None

    @property
    def given(self) -> bool:
        return self.mean is not None or self.scale is not None


def read_input(path: Path, info: TensorInfo, pixels: Pixels) -> tuple[Array, list[str]]:
    """The array for input `info`, and notes on what was converted. Raises InputError naming `path`."""
    suffix = path.suffix.lower()
    if suffix == ".npz":
        raise InputError(f"{_existing(path)} is an archive of arrays, not one: give each array as .npy")
    if suffix == ".png":
        return _read_png(path, info, pixels)
    if pixels.given:
        raise InputError(f"--mean and --scale are for pictures and {path} is none: leave them out")
    return (_read_npy(path) if suffix == ".npy" else _read_raw(path, info)), []


def _read_npy(path: Path) -> Array:
    try:
        array: Array = np.load(_existing(path), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as .npy ({error}): write it with numpy.save") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} is an archive of arrays, not one: write it with numpy.save")
    return array


def _read_raw(path: Path, info: TensorInfo) -> Array:
    try:
        content = _existing(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    expected = int(np.prod(info.shape)) * info.dtype.itemsize
    if len(content) != expected:
        raise InputError(f"{path} holds {len(content)} bytes: input {info} takes exactly {expected} raw ones")
    return np.frombuffer(content, info.dtype.newbyteorder("<")).astype(info.dtype).reshape(info.shape)


def _read_png(path: Path, info: TensorInfo, pixels: Pixels) -> tuple[Array, list[str]]:
    height, width, channels = _picture_shape(path, info)
    try:
        from PIL import Image
    except ImportError:
        raise InputError("pictures need Pillow: pip install 'npubox[png]'") from None
    try:
        with Image.open(_existing(path), formats=["PNG"]) as picture:
            picture.load()
            mode, size = picture.mode, picture.size
            values = np.asarray(picture.convert(_MODES[channels])) if mode in _SPOKEN else None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as a PNG ({error}): save the picture again") from error
    if values is None:
        raise InputError(f"{path} has pixels of more than 8 bits ({mode}): save it with 8 bits a channel")
    if size != (width, height):
        raise InputError(
            f"{path} has {size[0]} x {size[1]} pixels, input {info} takes {width} x {height}: resize it"
        )
    notes = [] if mode == _MODES[channels] else [f"{path}: {_SPOKEN[mode]} to {_SPOKEN[_MODES[channels]]}"]
    return _stored(path, values.reshape(info.shape), info, pixels), notes


def _stored(path: Path, values: Array, info: TensorInfo, pixels: Pixels) -> Array:
    if pixels.given:
        mean, scale = pixels.mean or 0.0, 1.0 if pixels.scale is None else pixels.scale
        return (values.astype(np.float64) - mean) * scale
    if info.dtype == np.uint8:
        return values
    if info.dtype == np.int8:
        return (values.astype(np.int16) - _INT8_OFFSET).astype(np.int8)
    raise InputError(
        f"{path}: pixels have no obvious {info.dtype} value for input {info}, give --mean and --scale"
    )


def _picture_shape(path: Path, info: TensorInfo) -> tuple[int, int, int]:
    """Height, width and channels that the input takes, with or without ones in front."""
    shape = info.shape[-3:]
    if len(shape) != 3 or set(info.shape[:-3]) - {1} or shape[2] not in _MODES:
        raise InputError(f"{path} is a picture and input {info} takes none: give .npy or raw bytes")
    return shape[0], shape[1], shape[2]


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    return path
