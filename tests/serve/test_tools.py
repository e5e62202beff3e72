# SPDX-License-Identifier: Apache-2.0
"""A distribution's programs for DRM devices end cleanly; docs/exec-programs.md has what they say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.serve.conftest import run

TIERS = pytest.mark.parametrize("tier", [(), ("--seccomp-only",)], ids=["namespace", "seccomp"])
NODE = "/dev/accel/accel0"
PACKAGE = {"drm_info": "drm-info", "drmdevice": "libdrm-tests", "modetest": "libdrm-tests"}
FAILED = 255  # modetest's exit(-1)
SKIPPED = 77
# As printed on a real node of the reference driver (accel-core.md §4.2).
DRM_INFO = "drmGetDevice: No such file or directory\ndrmModeGetResources: Operation not supported\n"


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("drm_info", 1, "drmGetDevices: No such file or directory"),
        (f"drm_info {NODE}", 0, DRM_INFO),
        (f"drm_info -j {NODE}", 0, DRM_INFO),
        ("drmdevice", SKIPPED, "has not found any devices"),
        (f"modetest -D {NODE}", FAILED, "device"),
        ("modetest -M ethosu", FAILED, "failed to open device 'ethosu'"),
        (f"modetest -M ethosu -D {NODE}", FAILED, "failed to open device 'ethosu'"),
    ],
)
@TIERS
@pytest.mark.skipif(Path("/dev/dri").exists(), reason="the host's own DRM devices would be listed as well")
def test_ends_cleanly(command: str, code: int, said: str, tier: tuple[str, ...]) -> None:
    program, *arguments = command.split()
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}, of the package {PACKAGE[program]}")
    done = run(program, *arguments, options=tier, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stdout + done.stderr
