# SPDX-License-Identifier: Apache-2.0
"""docs/conformance.md."""

from __future__ import annotations

from collections.abc import Sequence

from tests.conformance.recorded import deviations, recorded_programs
from tests.conformance.referees import Comparison, programs

Row = tuple[str, Sequence[Comparison]]

PAGE = """\
# What the kernel's own tests say

Written by `make conformance`; nothing here is edited by hand. The machine is `refaccel`, the reference
driver on the accel core, whose twin was measured on Linux 7.2.13. Each answer is compared with the recorded
one: the probe line by line, IGT's programs subtest by subtest, among them the {passed} subtests that pass
on the real node.

{circumstances}

{table}

## Deviations

| in | real | ours | why |
|---|---|---|---|
{lines}

Programs of IGT that are not run:

{left_out}

## What the interception costs

Conformance is run with `--notify-all`, under which every call on every file is looked at. It is opt-in;
this is what it costs programs that touch no node (medians, the rounds interleaved, the start of the launch
included, without the computing process; `true` shows mostly that an option loads the whole of the command
line):

{costs}
"""


def table(rows: Sequence[Row]) -> str:
    """How many answers were as recorded, deviated as listed, or differed otherwise, in each round."""
    lines = ["| | as recorded, each round | deviating as listed | otherwise |", "|---|---|---|---|"]
    for name, results in rows:
        columns = [(result.equal, result.deviating, len(result.wrong)) for result in results]
        cells = (" ".join(map(str, column)) for column in zip(*columns, strict=True))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def page(rows: Sequence[Row], costs: str, circumstances: str) -> str:
    """The page; `circumstances` say on what and with what versions it was made."""
    recorded = recorded_programs()
    listed = deviations()
    return PAGE.format(
        passed=sum(list(recorded[program].values()).count("SUCCESS") for program in programs()),
        circumstances=circumstances,
        table=table(rows),
        lines="\n".join(
            f"| {', '.join(line.runs)} | `{line.real}` | `{line.ours}` | {line.reason} |"
            for line in listed.lines
        ),
        left_out="\n".join(f"- {name}: {reason}" for name, reason in listed.programs.items()),
        costs=costs,
    )
