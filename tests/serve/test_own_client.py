# SPDX-License-Identifier: Apache-2.0
"""Our own client on the node: every picture of the digits, the bits of the in-process path."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.serve.conftest import CLIENTS, TIMEOUT, environment, run
from tests.serve.jobs import DIGITS

TIERS = pytest.mark.parametrize("tier", [(), ("--seccomp-only",)], ids=["namespace", "seccomp"])
NODE = "/dev/accel/accel0"


@TIERS
def test_every_picture(tmp_path: Path, tier: tuple[str, ...]) -> None:
    command = [sys.executable, str(CLIENTS / "all_digits.py")]
    files = [str(DIGITS / "digits.tflite"), str(DIGITS / "test.npz")]
    run(*command, NODE, *files, tmp_path / "served.npz", options=tier)
    here = [*command, "imx93", *files, str(tmp_path / "here.npz")]
    subprocess.run(here, check=True, timeout=TIMEOUT, env=environment())
    served, in_process = _loaded(tmp_path / "served.npz"), _loaded(tmp_path / "here.npz")
    assert not served["virtual"]
    assert in_process["virtual"]
    assert np.array_equal(served["about"], in_process["about"])
    expected = _loaded(DIGITS / "test.npz")["expected"]
    assert len(expected) == 360
    for found in (served["scores"], in_process["scores"]):
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)


def _loaded(path: Path) -> dict[str, Any]:
    with np.load(path) as stored:
        return dict(stored)
