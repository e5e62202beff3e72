# SPDX-License-Identifier: Apache-2.0
"""libdrm on a served node: what its calls gave on a real accel node, and its restarts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve.conftest import SOURCE, TIMEOUT, Compile, environment, run

INCLUDE = Path("/usr/include/libdrm")
pytestmark = pytest.mark.skipif(
    not (INCLUDE.parent / "xf86drm.h").exists(), reason="needs libdrm's headers, of the package libdrm-dev"
)
OPTIONS = (f"-I{INCLUDE}", "-ldrm")
# accel-core.md §2.4, §2.5, §2.6, §2.7, §4.1.
EXPECTED = """
version: 1.0.0
name: 6 ethosu
date: 1 0
desc: 24 Arm Ethos-U Accel driver
PRIME: 3
TIMESTAMP_MONOTONIC: 1
SYNCOBJ: 0
SYNCOBJ_TIMELINE: 0
DUMB_BUFFER: EOPNOTSUPP
ADDFB2_MODIFIERS: EOPNOTSUPP
drmSetClientCap: EOPNOTSUPP
BO_CREATE: 0
size: 8192, handle: 1
drmPrimeHandleToFD: 0
dma-buf: 8192 bytes
drmPrimeFDToHandle: 0
same handle: 1
drmPrimeHandleToFD of no handle: ENOENT
drmCloseBufferHandle: 0
drmCloseBufferHandle again: EINVAL
drmSyncobjCreate: EOPNOTSUPP
drmIsMaster: 0
drmGetMagic: EACCES
drmGetBusid: 
drmGetNodeTypeFromFd: EINVAL
drmGetDevice2: EINVAL
drmGetDevices2: ENOENT
drmGetDeviceNameFromFd2: NULL
drmGetRenderDeviceNameFromFd: NULL
drmAvailable: 0
drmClose: 0
drmGetVersion after it: EBADF
"""
RESTARTED = "ioctl: EINTR\ndrmIoctl: ETIME\ninterrupted: 1, more than once: 1, in time: 1\n"


@pytest.mark.parametrize("static", [(), ("-static",)], ids=["dynamic", "static"])
@pytest.mark.parametrize("tier", [(), ("--seccomp-only",)], ids=["namespace", "seccomp"])
@pytest.mark.skipif(Path("/dev/dri").exists(), reason="the host's own DRM devices change libdrm's answers")
def test_calls(compiled: Compile, static: tuple[str, ...], tier: tuple[str, ...]) -> None:
    done = run(compiled("libdrm", *OPTIONS, *static), "calls", options=tier)
    assert done.stdout.split("\n") == [*EXPECTED.strip("\n").split("\n"), ""]


@pytest.mark.parametrize("tier", ["--tier=A", "--tier=B"])
def test_an_interrupted_call_is_restarted(compiled: Compile, tmp_path: Path, tier: str) -> None:
    command = [sys.executable, "-m", "tests.serve.refmachine", str(tmp_path / "report"), tier, "--"]
    done = subprocess.run(
        [*command, str(compiled("libdrm", *OPTIONS)), "restart"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=environment(),
        cwd=SOURCE.parent,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == RESTARTED
