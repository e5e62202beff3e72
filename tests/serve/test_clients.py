# SPDX-License-Identifier: Apache-2.0
"""Unmodified programs end to end: each gives the bits of the in-process path."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve.conftest import CLIENTS, Compile, run
from tests.serve.jobs import DIGITS, digits

# As printed on a real node of the reference driver (accel-core.md §4.2), and with mainline's name.
DRM_INFO = """drmGetDevice: No such file or directory
drmModeGetResources: Operation not supported
"""
LIBDRM = """ethosu|0|Arm Ethos-U Accel driver|1.0.0
PRIME 0 3
DUMB_BUFFER -1 1
master 0, node type -1, render name 0
BO_CREATE 0 handle 1
{prime}
GEM_CLOSE 0
devices -2
"""
PRIME_ABSENT = "PRIME: Operation not supported"  # until the core has PRIME
PRIME_PRESENT = "PRIME: size 4096, import 0, same handle 1"


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


def test_rust_with_threads(tmp_path: Path) -> None:
    compiler = shutil.which("rustc")
    if compiler is None:
        pytest.skip("needs a Rust compiler")
    client = tmp_path / "job-rs"
    subprocess.run([compiler, "--edition", "2021", "-o", client, CLIENTS / "job.rs"], check=True)
    (tmp_path / "job").write_bytes(digits().content)
    run(client, "job", "out", "5", cwd=tmp_path)
    assert (tmp_path / "out").read_bytes() == digits().expected * 5


@pytest.mark.parametrize("options", [(), ("--seccomp-only",)], ids=["namespace", "seccomp"])
def test_our_own_client_on_real_system_calls(tmp_path: Path, options: tuple[str, ...]) -> None:
    code = (
        "import sys, numpy as np, npubox\n"
        "with npubox.open('/dev/accel/accel0') as device, device.load(sys.argv[1]) as network:\n"
        "    assert not device.virtual and device.accelerator == 'ethos-u65-256'\n"
        "    out = network(np.load(sys.argv[2])['inputs'][:1])\n"
        "    open('out', 'wb').write(np.asarray(out[0] if isinstance(out, (tuple, list)) else out).tobytes())\n"
    )
    files = DIGITS / "digits.tflite", DIGITS / "test.npz"
    run(sys.executable, "-c", code, *files, options=options, cwd=tmp_path)
    assert (tmp_path / "out").read_bytes() == digits().expected


def test_libdrm(compiled: Compile) -> None:
    if shutil.which("pkg-config") is None or subprocess.run(["pkg-config", "libdrm"], check=False).returncode:
        pytest.skip("needs libdrm's headers (Debian: libdrm-dev)")
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "libdrm"], capture_output=True, text=True, check=True
    ).stdout.split()
    output = run(compiled("libdrm_calls", *flags)).stdout
    assert output in (LIBDRM.format(prime=PRIME_ABSENT), LIBDRM.format(prime=PRIME_PRESENT))


def _installed(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"needs {program} (Debian: drm-info, libdrm-tests)")
    return path


def test_drm_info() -> None:
    done = run(_installed("drm_info"), "/dev/accel/accel0", check=False)
    assert done.returncode in (0, 1)
    assert done.stderr == DRM_INFO


def test_drmdevice_and_modetest_end_cleanly() -> None:
    done = run(_installed("drmdevice"), check=False)
    assert "has not found any devices" in done.stdout + done.stderr
    assert done.returncode == 77  # its way of saying: skipped
    done = run(_installed("modetest"), "-D", "/dev/accel/accel0", check=False)
    assert done.returncode == 255
    assert "no device found" in done.stderr
