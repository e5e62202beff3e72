# SPDX-License-Identifier: Apache-2.0
"""docs/ethos-u.md is what the code and the recorded evidence say, and the evidence is what streams hold."""

from __future__ import annotations

import json

import pytest
from scripts.ethosu_coverage.evidence import COMMANDS, Evidence, held
from scripts.ethosu_coverage.features import ASPECTS, Aspect, refusal
from scripts.ethosu_coverage.page import page, unverified
from scripts.make_coverage import EVIDENCE, PAGE

from tests.corpus.cases import content_of
from tests.corpus.vela import compiled

ASPECTS_BY_NAME: dict[str, Aspect] = {aspect.name: aspect for aspect in ASPECTS}


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    recorded: Evidence = json.loads(EVIDENCE.read_text("utf-8"))
    return recorded


def test_the_page_is_what_the_generator_writes(evidence: Evidence) -> None:
    assert PAGE.read_text("utf-8") == page(evidence), "run: python -m scripts.make_coverage"


def test_what_was_seen_is_in_the_tables_and_not_refused(evidence: Evidence) -> None:
    for kind, aspects in evidence["seen"].items():
        if kind == COMMANDS:
            continue
        for name, values in aspects.items():
            aspect = ASPECTS_BY_NAME[name]
            assert kind in aspect.kinds
            for value in values:
                assert value in aspect.values, (kind, name)
                assert refusal(kind, aspect, value) is None, (kind, name, value)


def test_most_of_what_is_modelled_is_verified(evidence: Evidence) -> None:
    """Every operation occurs in exact networks, with every rounding, weight order and input scale mode."""
    operations = set(evidence["seen"][COMMANDS]["operations"])
    assert operations == {kind for aspect in ASPECTS for kind in aspect.kinds}
    missing = {(aspect, value) for aspect, value, kinds in unverified(evidence) if "CONV" in kinds}
    assert not {aspect for aspect, _ in missing} & {
        "rounding",
        "weight order",
        "cores",
        "accumulator",
        "padding",
    }


@pytest.mark.parametrize("name", ["conv_3x3_int16", "inception_int8", "softmax_rows_int8", "hard_swish_int8"])
@pytest.mark.parametrize("accelerator", ["ethos-u55-128", "ethos-u65-512"])
def test_the_evidence_is_what_streams_hold(evidence: Evidence, name: str, accelerator: str) -> None:
    found = set(held(compiled(content_of(name), accelerator), accelerator))
    assert len(found) > 50
    for kind, aspect, value in found:
        assert value in evidence["seen"][kind][aspect]


def test_a_refusal_is_the_decoders() -> None:
    assert refusal("CONV", ASPECTS_BY_NAME["weight order"], "part-kernel-first") is None
    reason = refusal("CONV", ASPECTS_BY_NAME["rounding"], "TRUNCATE")
    assert reason is not None
    assert "truncating rounding" in reason
