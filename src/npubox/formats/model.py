# SPDX-License-Identifier: Apache-2.0
"""Whatever a network comes in: a .tflite, compiled or not, or the .npz of Vela's raw output."""

from __future__ import annotations

from pathlib import Path

from npubox.formats.network import Network
from npubox.formats.raw_npz import read_raw_npz
from npubox.formats.tflite import read_network

ZIP = b"PK"


def read_model(source: Path | str | bytes, *, signed: bool | None = None) -> Network:
    """Read a network from a path, or from a file's bytes.

    `signed` says whether the 8-bit tensors of an .npz are int8, where the file does not tell; a .tflite
    always does. Raises `ModelError` for what is missing, damaged or neither of the two.
    """
    if _start(source) == ZIP:
        return read_raw_npz(source, signed=signed)
    return read_network(source)


def _start(source: Path | str | bytes) -> bytes:
    if isinstance(source, bytes):
        return source[:2]
    try:
        with open(source, "rb") as file:
            return file.read(2)
    except OSError:
        return b""  # read_network says what is wrong
