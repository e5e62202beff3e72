# SPDX-License-Identifier: Apache-2.0
"""As many accel devices as there are minors, in one machine, which share buffers and sync objects."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from npubox.core.drm.device import ACCEL_MAX_MINORS
from tests.serve.conftest import CLIENTS, run

DEVICE = '[[refaccel]]\nnode = "/dev/accel/accel{0}"\nname = "refaccel.{0}"\n'


def machine(path: Path, count: int) -> Path:
    path.write_text(
        'description = "many"\n' + "".join(DEVICE.format(index) for index in range(count)), "utf-8"
    )
    return path


@pytest.mark.parametrize("tier", [(), ("--seccomp-only",)], ids=["namespace", "seccomp alone"])
@pytest.mark.parametrize("count", [2, ACCEL_MAX_MINORS])
def test_they_share(tmp_path: Path, count: int, tier: tuple[str, ...]) -> None:
    options = ["--machine", str(machine(tmp_path / "many.toml", count)), *tier]
    done = run(sys.executable, CLIENTS / "many_devices.py", str(count), options=options)
    assert done.stdout.splitlines() == [
        "minors: True True",
        "buffer: b'firstlast' b'firstlast'",
        "sync object: signalled",
    ]


def test_one_too_many_is_said(tmp_path: Path) -> None:
    file = machine(tmp_path / "many.toml", ACCEL_MAX_MINORS + 1)
    done = run("cat", "/dev/accel/accel0", options=["--machine", str(file), "--all-opens"], check=False)
    assert done.returncode != 0
    assert f"{file} did not power up: " in done.stderr
