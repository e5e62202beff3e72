# SPDX-License-Identifier: Apache-2.0
"""The documents name what exists: links, files, functions, and the import contracts as they are enforced."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md")
REFERENCES = "docs/references.md"  # names files of other projects
PACKAGE = ROOT / "src" / "npubox"
LINK = re.compile(r"\]\(([^)#:]+)\)")
NAMED = re.compile(r"`([\w/]+\.py)`\s`([\w.]+)`")
PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]*)`")


def text(document: str) -> str:
    return (ROOT / document).read_text("utf-8")


def test_the_patterns_find_something() -> None:
    page = text("docs/architecture.md")
    assert len(NAMED.findall(page)) > 40
    assert len(PATH.findall(text("CONTRIBUTING.md"))) > 20


def defined(path: Path) -> set[str]:
    """Functions and classes of a module, methods as `Class.method`."""
    names: set[str] = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef):
            methods = (item for item in node.body if isinstance(item, ast.FunctionDef))
            names |= {node.name, *(f"{node.name}.{method.name}" for method in methods)}
        elif isinstance(node, ast.FunctionDef):
            names.add(node.name)
    return names


@pytest.mark.parametrize("document", [*DOCUMENTS, REFERENCES])
def test_links_lead_somewhere(document: str) -> None:
    links = LINK.findall(text(document))
    missing = [link for link in links if not ((ROOT / document).parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_functions_are_where_the_document_says(document: str) -> None:
    wrong = [
        f"{name} in {path}"
        for path, name in NAMED.findall(text(document))
        if not (PACKAGE / path).is_file() or name not in defined(PACKAGE / path)
    ]
    assert wrong == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_exist(document: str) -> None:
    """A path is relative to the repository, or to the package."""
    named = [path for path in PATH.findall(text(document)) if not path.startswith(".")]
    missing = [path for path in named if not (ROOT / path).exists() and not (PACKAGE / path).exists()]
    assert missing == []


def test_the_table_of_rooms_is_what_the_contracts_enforce() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", text("docs/architecture.md"), re.MULTILINE)
    rooms = {
        path.stem for path in PACKAGE.iterdir() if not path.name.startswith("_") and path.suffix != ".typed"
    }
    assert {room for room, _ in rows} == rooms
    for room, may in rows:
        others = rooms - {room}
        named = set(re.findall(r"`(\w+)`", may))
        allowed = others - named if may.startswith("everything") else named
        assert allowed == others - _forbidden(room), room


def _forbidden(room: str) -> set[str]:
    """The rooms that some contract keeps `room` from importing."""
    contracts = tomllib.loads(text("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    found: set[str] = set()
    for contract in contracts:
        if contract["type"] == "independence" and f"npubox.{room}" in contract["modules"]:
            found |= _rooms(contract["modules"])
        elif contract["type"] == "forbidden" and f"npubox.{room}" in contract["source_modules"]:
            found |= _rooms(contract["forbidden_modules"])
    return found - {room}


def _rooms(modules: list[str]) -> set[str]:
    return {module.removeprefix("npubox.") for module in modules if module.startswith("npubox.")}
