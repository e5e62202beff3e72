# SPDX-License-Identifier: Apache-2.0
"""What the real kernel answered: the probe's lines, IGT's verdicts, and the deviations that are allowed.

The answers lie beside the repository (../shared/conformance, or $NPUBOX_SHARED).
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.debian import Unavailable
from tests.networks import SHARED

CONFORMANCE = SHARED / "conformance"
RUNS = {"root": (), "unprivileged": ("user",), "unplug": ("unplug", "u")}
"""The recorded runs of the probe, and its arguments after the node."""

MISPRINTED, RIGHT = "poll 1 rev 0", ("poll 1 rev 5", "poll 1 rev 5", "poll 1 rev 1")
"""Printed before the result was read, in all runs but the last; as the conformance README says."""

_VARIES = (
    (re.compile(r"^(mnt_id|ino|drm-client-id|count):\t\d+$"), r"\1:\tN"),
    (re.compile(r"pid=\d+ \(me \d+\)"), "pid=N (me N)"),
    (re.compile(r"took \d+ us"), "took N us"),
    (re.compile(r"ts=\d+"), "ts=N"),
)
_VERDICT = re.compile(r"^Subtest ([\w-]+): (SUCCESS|FAIL|SKIP|CRASH|TIMEOUT)")
_WHOLE = re.compile(r"^(SUCCESS|FAIL|SKIP)\b")


@dataclass(frozen=True)
class Deviation:
    """A line of the probe that differs, in some of its runs."""

    runs: tuple[str, ...]
    real: str
    ours: str
    reason: str


@dataclass(frozen=True)
class Deviations:
    """What may differ: lines of the probe, and programs that are not run, by name with the reason."""

    lines: tuple[Deviation, ...]
    programs: dict[str, str]


def deviations() -> Deviations:
    table = tomllib.loads((Path(__file__).parent / "deviations.toml").read_text("utf-8"))
    return Deviations(
        tuple(Deviation(**{**line, "runs": tuple(line["runs"])}) for line in table["line"]),
        table["programs"],
    )


def normalised(text: str) -> list[str]:
    """The lines without what differs from run to run: ids, inodes, mounts, processes, times."""
    lines = []
    for line in text.splitlines():
        if line.startswith("##"):
            continue
        for pattern, replacement in _VARIES:
            line = pattern.sub(replacement, line)
        lines.append(line)
    return lines


def probe_answers(run: str) -> list[str]:
    """The lines that one run of the probe printed, normalised, and with its known misprints put right."""
    lines = normalised(_read(CONFORMANCE / "answers" / f"probe-{run}.txt"))
    right = iter(RIGHT)
    return [line.replace(MISPRINTED, next(right)) if MISPRINTED in line else line for line in lines]


def verdicts(output: str) -> dict[str, str]:
    """The verdict of each subtest, or of the program as "" where it has none."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in output.splitlines()]
    found = {match[1]: match[2] for line in lines if (match := _VERDICT.match(line))}
    whole = [match[1] for line in lines if (match := _WHOLE.match(line))]
    return found or {"": whole[-1]} if whole or found else {}


def recorded_programs() -> dict[str, dict[str, str]]:
    """The verdicts of each of IGT's programs."""
    files = sorted((CONFORMANCE / "igt").glob("igt_*.txt"))
    if not files:
        raise Unavailable(f"the recorded verdicts are not in {CONFORMANCE}")
    return {file.stem.removeprefix("igt_"): verdicts(_read(file)) for file in files}


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8", errors="replace")
    except OSError as error:
        raise Unavailable(f"{file}: {error.strerror} (NPUBOX_SHARED)") from error
