# SPDX-License-Identifier: Apache-2.0
"""Unmodified programs end to end: each gives the bits of the in-process path."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve.conftest import CLIENTS, Compile, run
from tests.serve.jobs import DIGITS, digits


@pytest.mark.parametrize("options", [(), ("-static",)], ids=["dynamic", "static"])
@pytest.mark.parametrize("tier", [(), ("--seccomp-only",)], ids=["namespace", "seccomp"])
def test_mesas_order_of_calls(
    compiled: Compile, tmp_path: Path, options: tuple[str, ...], tier: tuple[str, ...]
) -> None:
    job = digits()
    (tmp_path / "job").write_bytes(job.content)
    client = compiled("mesa_like", *options)
    run(client, "job", "out", options=tier, cwd=tmp_path)
    assert (tmp_path / "out").read_bytes() == job.expected


def test_many_threads_on_one_file(compiled: Compile, tmp_path: Path) -> None:
    job = digits()
    (tmp_path / "job").write_bytes(job.content)
    run(compiled("mesa_like"), "job", "out", "16", cwd=tmp_path)
    assert (tmp_path / "out").read_bytes() == job.expected * 16


def test_forks_and_passed_descriptors(tmp_path: Path) -> None:
    """A child submits what its parent prepared; a third process reads it through a descriptor sent on."""
    (tmp_path / "job").write_bytes(digits().content)
    run(sys.executable, CLIENTS / "fcntl_only.py", "job", "out", "fork", cwd=tmp_path)
    assert (tmp_path / "out").read_bytes() == digits().expected


def test_python_with_fcntl_alone(tmp_path: Path) -> None:
    (tmp_path / "job").write_bytes(digits().content)
    run(sys.executable, CLIENTS / "fcntl_only.py", "job", "out", cwd=tmp_path)
    assert (tmp_path / "out").read_bytes() == digits().expected


@pytest.mark.parametrize("options", [(), ("-C", "target-feature=+crt-static")], ids=["dynamic", "static"])
def test_rust_with_threads(tmp_path: Path, options: tuple[str, ...]) -> None:
    compiler = shutil.which("rustc")
    if compiler is None:
        pytest.skip("needs a Rust compiler")
    client = tmp_path / "job-rs"
    subprocess.run(
        [compiler, "--edition", "2021", "-o", str(client), *options, str(CLIENTS / "job.rs")], check=True
    )
    (tmp_path / "job").write_bytes(digits().content)
    run(client, "job", "out", "5", cwd=tmp_path)
    assert (tmp_path / "out").read_bytes() == digits().expected * 5


@pytest.fixture(scope="session")
def go_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Static, no libc, and a runtime that interrupts its threads with signals."""
    compiler = shutil.which("go")
    if compiler is None:
        pytest.skip("needs a Go toolchain (Debian: golang-go)")
    directory = tmp_path_factory.mktemp("go")
    cache = {"GOCACHE": str(directory / "cache"), "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}
    client = directory / "job-go"
    command = [compiler, "build", "-o", str(client), str(CLIENTS / "job.go")]
    subprocess.run(command, check=True, env={**os.environ, **cache}, cwd=directory)
    return client


@pytest.mark.parametrize("options", [(), ("--seccomp-only",)], ids=["namespace", "seccomp"])
def test_go_with_goroutines(go_client: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "job").write_bytes(digits().content)
    run(go_client, "job", "out", "8", options=options, cwd=tmp_path)
    assert (tmp_path / "out").read_bytes() == digits().expected * 8


@pytest.mark.parametrize("options", [(), ("--seccomp-only",)], ids=["namespace", "seccomp"])
def test_our_own_client_on_real_system_calls(tmp_path: Path, options: tuple[str, ...]) -> None:
    code = (
        "import sys, numpy as np, npubox\n"
        "with npubox.open('/dev/accel/accel0') as device, device.load(sys.argv[1]) as network:\n"
        "    assert not device.virtual and device.accelerator == 'ethos-u65-256'\n"
        "    out = network(np.load(sys.argv[2])['inputs'][:1])\n"
        "    np.asarray(out[0] if isinstance(out, (tuple, list)) else out).tofile('out')\n"
    )
    files = DIGITS / "digits.tflite", DIGITS / "test.npz"
    run(sys.executable, "-c", code, *files, options=options, cwd=tmp_path)
    assert (tmp_path / "out").read_bytes() == digits().expected
