# SPDX-License-Identifier: Apache-2.0
"""The first power-up compiles kernels: it is known beforehand, and said to a terminal."""

from __future__ import annotations

import ast
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from npubox.devices import kernel_cache
from npubox.machines import kernels_ready, open_preset

SOURCES = Path(__file__).parents[2] / "src"
CHEAP = "import sys, npubox.machines as m; print(m.kernels_ready(), 'numba' in sys.modules)"
FIRST_TIME = """
import npubox, npubox.machines
npubox.machines.kernels_ready = lambda: False
npubox.open("imx93").close()
"""


def start(code: str, *, cache: Path | None = None, stderr: int = subprocess.PIPE) -> tuple[str, str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCES), "TERM": "xterm"}
    if cache is not None:
        environment["XDG_CACHE_HOME"] = str(cache)
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env=environment,
        check=True,
        timeout=300,
    )
    return done.stdout, done.stderr


def test_it_is_known_without_loading_the_compiler(tmp_path: Path) -> None:
    assert start(CHEAP, cache=tmp_path)[0] == "False False\n"
    with open_preset("imx93"):
        assert kernels_ready()
    assert start(CHEAP)[0] == "True False\n"


def test_a_start_that_was_interrupted_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory is there with the first kernel; the marker comes with the last."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for cached in (kernel_cache.directory, kernel_cache._marker):
        cached.cache_clear()
    try:
        kernel_cache.directory().mkdir(parents=True)
        assert tmp_path in kernel_cache.directory().parents
        assert not kernels_ready()
        kernel_cache.mark_complete()
        assert kernels_ready()
    finally:
        for cached in (kernel_cache.directory, kernel_cache._marker):
            cached.cache_clear()


def test_said_to_a_terminal() -> None:
    ours, theirs = pty.openpty()
    try:
        start(FIRST_TIME, stderr=theirs)
        assert "compiling the NPU's kernels, once" in os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)


def test_quiet_in_a_pipe() -> None:
    assert start(FIRST_TIME) == ("", "")


def test_compiled_code_takes_nothing_from_files_outside_the_key() -> None:
    """Else a change there would leave stale kernels in the cache."""
    compiled = {source.resolve() for source in kernel_cache.compiled_sources()}
    assert SOURCES / "npubox/devices/ethosu_npu/kernels/program.py" in compiled
    assert SOURCES / "npubox/devices/simd.py" in compiled
    for source in compiled - {Path(kernel_cache.__file__).resolve()}:
        for node in ast.walk(ast.parse(source.read_text())):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("npubox"):
                continue
            path = SOURCES / node.module.replace(".", "/")  # type: ignore[union-attr]
            for name in node.names:
                module = path / f"{name.name}.py" if path.is_dir() else path.with_suffix(".py")
                raised = module.name == "faults.py"  # an exception class, raised outside compiled code
                assert module in compiled or raised, f"{source.name} takes {name.name} from {module.name}"
