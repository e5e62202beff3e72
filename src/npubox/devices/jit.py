# SPDX-License-Identifier: Apache-2.0
"""Compiled kernels of the virtual devices: typed ways into Numba.

Kernels carry explicit signatures, so they are compiled (or loaded from the disk cache) when their
module is imported, which a machine does at power-up, never inside a job. The cache lies in the user's
cache directory under a key made of all device sources: Numba itself notices a change only in the file
of the kernel, not in the helpers that it calls.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numba
import numpy as np

P = ParamSpec("P")
R = TypeVar("R")

if TYPE_CHECKING:

    def i64(value: Any) -> int:
        """A 64-bit integer in kernels; to mypy, an int."""

else:
    i64 = np.int64


@cache
def cache_directory() -> Path:
    """Where the compiled kernels of exactly these sources are kept."""
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "npubox" / "kernels" / digest.hexdigest()[:16]


def compiled_before() -> bool:
    """Whether the disk cache holds kernels already; if not, the first import takes a while."""
    return cache_directory().is_dir()


@contextmanager
def _caching() -> Iterator[None]:
    previous = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(cache_directory())
    try:
        yield
    finally:
        numba.config.CACHE_DIR = previous


def kernel(*signatures: str, **options: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Compile for `signatures` now; without the GIL, cached on disk."""

    def compile_(function: Callable[P, R]) -> Callable[P, R]:
        settings = {"nogil": True, "cache": True, "error_model": "numpy"} | options
        with _caching():
            compiled: Callable[P, R] = numba.njit(list(signatures), **settings)(function)
        return compiled

    return compile_


def helper(function: Callable[P, R]) -> Callable[P, R]:
    """A function that only kernels call; compiled into each of them."""
    compiled: Callable[P, R] = numba.njit(nogil=True, error_model="numpy", inline="never")(function)
    return compiled
