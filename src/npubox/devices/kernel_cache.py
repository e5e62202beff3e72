# SPDX-License-Identifier: Apache-2.0
"""Where the compiled kernels are kept, and whether all of them are there: told without loading Numba.

The directory's name is a key made of every device source that holds compiled code: Numba itself notices a
change only in the file of a kernel, not in the helpers that it calls. Such a file names Numba, llvmlite or
`npubox.devices.jit`; what is compiled takes constants and helpers from such files alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

_COMPILED = (b"numba", b"llvmlite", b"npubox.devices.jit")
_CPU = ("model name", "flags", "Features", "CPU part")  # lines of /proc/cpuinfo that code depends on


@cache
def directory() -> Path:
    """Where the compiled kernels of exactly these sources are kept."""
    options = [os.environ.get(name) or "0" for name in ("NUMBA_BOUNDSCHECK", "NPUBOX_PORTABLE")]
    digest = hashlib.sha256(repr((metadata.version("numba"), *options)).encode())
    for source in compiled_sources():
        digest.update(source.read_bytes())
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not root.is_absolute():  # as the XDG specification has it
        root = Path.home() / ".cache"
    return root / "npubox" / "kernels" / digest.hexdigest()[:16]


def compiled_sources() -> list[Path]:
    """The files below `devices` that hold compiled code."""
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    return [source for source in sources if any(mark in source.read_bytes() for mark in _COMPILED)]


def complete() -> bool:
    """Whether every kernel was compiled before for this CPU; if not, loading the devices takes a while."""
    return _marker().is_file()


def mark_complete() -> None:
    """To be called when the modules of all devices have been imported."""
    with contextlib.suppress(OSError):  # of a cache that cannot be written; it costs time, not the run
        directory().mkdir(parents=True, exist_ok=True)
        _marker().touch()


@cache
def _marker() -> Path:
    """One file a kind of CPU: Numba compiles for the one it runs on, and a cache may be carried around."""
    lines: list[str] = []
    with contextlib.suppress(OSError):
        first = Path("/proc/cpuinfo").read_text("utf-8", "replace").partition("\n\n")[0]
        lines = [line for line in first.splitlines() if line.startswith(_CPU)]
    cpu = hashlib.sha256("\n".join([platform.machine(), *lines]).encode())
    return directory() / f"complete-{cpu.hexdigest()[:16]}"
