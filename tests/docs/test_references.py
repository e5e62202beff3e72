# SPDX-License-Identifier: Apache-2.0
"""docs/references.md explains every document and section of the facts that code cites."""

from __future__ import annotations

import re

import pytest

from tests.docs.blocks import ROOT

PAGE = (ROOT / "docs" / "references.md").read_text("utf-8")
TITLE = re.compile(r"^## `([\w-]+\.md)`", re.MULTILINE)
ROW = re.compile(r"^\| ([\d.]+) \|", re.MULTILINE)
# "ethosu-npu.md §1.2 and §1.3": a document, and the sections until other words come
CITED = re.compile(r"([\w-]+\.md) ((?:[,( ]*(?:and )?§[\d.]*\d(?: \([^)§]*\))?)+)")
BARE = re.compile(r"facts'? ((?:[,( ]*(?:and )?§[\d.]*\d)+)")
DEFAULT = "ethosu-npu.md"


def explained() -> dict[str, set[str]]:
    pieces = TITLE.split(PAGE)
    return {
        document: set(ROW.findall(text)) for document, text in zip(pieces[1::2], pieces[2::2], strict=True)
    }


def cited() -> set[tuple[str, str]]:
    found = set()
    for folder in ("src", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            text = re.sub(r"\s+#?\s*", " ", path.read_text("utf-8"))
            pairs = CITED.findall(text) + [(DEFAULT, sections) for sections in BARE.findall(text)]
            found |= {
                (document, section)
                for document, sections in pairs
                for section in re.findall(r"§([\d.]*\d)", sections)
            }
    return found


def test_every_citation_is_explained() -> None:
    known = {(document, section) for document, sections in explained().items() for section in sections}
    assert sorted(cited() - known) == []


@pytest.mark.parametrize(
    "citation", [("ethosu-npu.md", "1.3"), ("ethosu-npu.md", "7.5"), ("accel-core.md", "1.8")]
)
def test_the_patterns_find_citations(citation: tuple[str, str]) -> None:
    assert citation in cited()


def test_every_document_is_linked() -> None:
    for page in ("docs/architecture.md", "CONTRIBUTING.md"):
        assert "references.md)" in (ROOT / page).read_text("utf-8"), page
