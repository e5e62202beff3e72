# SPDX-License-Identifier: Apache-2.0
"""The fenced blocks of a Markdown file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = "```"


@dataclass(frozen=True)
class Block:
    """`language` as the fence names it; `line` is that of its first line, from 1."""

    language: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.language}-line-{self.line}"


def blocks(path: Path, language: str) -> list[Block]:
    """The blocks of one language, in order."""
    found: list[Block] = []
    opened: tuple[str, int] | None = None
    lines = path.read_text("utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.startswith(FENCE):
            continue
        if opened is None:
            opened = line.removeprefix(FENCE).strip(), number
        else:
            name, start = opened
            found.append(Block(name, start + 1, "\n".join(lines[start : number - 1]) + "\n"))
            opened = None
    assert opened is None, f"{path.name}: the block of line {opened} is not closed"
    return [block for block in found if block.language == language]
