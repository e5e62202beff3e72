# SPDX-License-Identifier: Apache-2.0
"""The probe whole, and the quicker of IGT's programs; all of them three times: make conformance."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from tests.conformance.recorded import RUNS, recorded_programs
from tests.conformance.referees import VERIFIED, Referees, compare_probe, compare_program, obtain
from tests.debian import Unavailable
from tests.serve.conftest import left

QUICK = ("core_getversion", "core_auth", "sw_sync", "syncobj_basic", "syncobj_eventfd")


@pytest.fixture(scope="session")
def referees() -> Referees:
    try:
        recorded_programs()
        return obtain()
    except Unavailable as why:
        pytest.skip(str(why))


@pytest.mark.parametrize("run", RUNS)
def test_probe_answers_as_the_real_kernel(referees: Referees, run: str) -> None:
    assert compare_probe(referees.probe, run).wrong == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="whoever is not root runs all of it without privileges")
@pytest.mark.parametrize("tier", [(), ("--tier=B",)], ids=["user namespace", "seccomp alone"])
def test_probe_of_a_launch_without_privileges(referees: Referees, tier: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o777)
        probe = Path(shutil.copy(referees.probe, place))
        options = ("--preset=refaccel", "--full", "--user", *tier)
        launch = [sys.executable, "-m", "tests.serve.counted", f"{place}/report", *options, "--"]
        assert compare_probe(probe, "unprivileged", launch).wrong == ()
        assert left(Path(place) / "report")["files"] == 0


@pytest.mark.parametrize("program", QUICK)
def test_igt(referees: Referees, program: str) -> None:
    result = compare_program(referees, program)
    assert result.wrong == (), f"verified with {VERIFIED}, this is {referees.versions}"
    assert result.equal == len(recorded_programs()[program])
