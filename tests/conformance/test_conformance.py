# SPDX-License-Identifier: Apache-2.0
"""The probe whole, and the quicker of IGT's programs; all of them three times: make conformance."""

from __future__ import annotations

import pytest

from tests.conformance.recorded import RUNS, recorded_programs
from tests.conformance.referees import VERIFIED, Referees, compare_probe, compare_program, obtain
from tests.debian import Unavailable

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
    assert compare_probe(referees, run).wrong == ()


@pytest.mark.parametrize("program", QUICK)
def test_igt(referees: Referees, program: str) -> None:
    result = compare_program(referees, program)
    assert result.wrong == (), f"verified with {VERIFIED}, this is {referees.versions}"
    assert result.equal == len(recorded_programs()[program])
