# SPDX-License-Identifier: Apache-2.0
"""Vela for many small networks: forked from a process that has imported it, each takes milliseconds."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from tests.corpus.apart import apart

LEGACY = "--debug-force-legacy-core"


@functools.lru_cache(maxsize=4)
def compiled(content: bytes, accelerator: str, *extra: str) -> bytes:
    """The .tflite as Vela compiles it. Raises RuntimeError for what Vela raises, Died when it aborts."""
    made: bytes = apart(_compile, content, accelerator, extra)
    return made


def _compile(content: bytes, accelerator: str, extra: tuple[str, ...]) -> bytes:
    from ethosu.vela import vela

    with tempfile.TemporaryDirectory(prefix="npubox-corpus-") as directory:
        source = Path(directory) / "network.tflite"
        source.write_bytes(content)
        arguments = [str(source), "--output-dir", directory, "--accelerator-config", accelerator, *extra]
        try:
            status = vela.main(arguments)
        except SystemExit as error:
            status = error.code
        if status:
            raise RuntimeError(f"Vela ended with status {status}")
        return (Path(directory) / "network_vela.tflite").read_bytes()
