# SPDX-License-Identifier: Apache-2.0
"""Everything that the kernel's own tests ask of the accel core: python -m tests.conformance [--write].

The probe's three runs and IGT's programs, three rounds, while another process keeps a CPU busy; then what the
launch's options cost. Prints a table; with --write renews docs/conformance.md too. Exit code 1 where
something is not as recorded, 0 with a word where the packages cannot be had.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.conformance import referees
from tests.conformance.page import Row, page, table
from tests.conformance.recorded import RUNS, recorded_programs
from tests.conformance.referees import Referees
from tests.debian import Unavailable
from tests.serve.conftest import environment, npubox_exec

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
ROUNDS = 3
MACHINE = ("--machine", "refaccel")
COSTS = {
    "`true`": ["true"],
    "a Python start with imports": [sys.executable, "-c", "import argparse, json, http.client, asyncio"],
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--write", action="store_true", help="renew docs/conformance.md")
    write = parser.parse_args().write
    try:
        recorded_programs()
        found = referees.obtain()
    except Unavailable as why:
        print(f"conformance: skipped: {why}")
        return 0
    with busy():
        rows = list(_rounds(found))
    circumstances = _circumstances(found)
    print(table(rows))
    wrong = [line for _, results in rows for result in results for line in result.wrong]
    print("\n".join(wrong))
    if write:
        PAGE.write_text(page(rows, _costs(), circumstances), "utf-8")
    return 1 if wrong else 0


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """Another process, of the same priority, that computes without pause."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as load:
        try:
            yield
        finally:
            load.kill()


def _rounds(found: Referees) -> Iterator[Row]:
    for run in RUNS:
        yield f"probe, {run}", [referees.compare_probe(found.probe, run) for _ in range(ROUNDS)]
    for program in referees.programs():
        yield f"IGT {program}", [referees.compare_program(found, program) for _ in range(ROUNDS)]


def _circumstances(found: Referees) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    who = "root" if os.geteuid() == 0 else "an unprivileged user"
    host = f"Linux {platform.release()}, {os.cpu_count()} CPUs"
    return (
        f"Packages: {versions}; IGT calls itself {referees.igt_version(found)}. Host: {host}.\nRun as {who}, "
        f"{ROUNDS} rounds one after the other, at ordinary priority, while another process computes;\n"
        f"the host's load over the last minute was {os.getloadavg()[0]:.0f}, that process counted."
    )


def _costs() -> str:
    """What the options of a launch cost a program that touches no node, in medians of interleaved rounds."""
    ways: dict[str, list[str]] = {
        "without a launch": [],
        "`npubox exec`": npubox_exec(*MACHINE, "--"),
        "with `--all-opens`": npubox_exec(*MACHINE, "--all-opens", "--"),
        "with `--notify-all`": npubox_exec(*MACHINE, "--notify-all", "--"),
    }
    lines = ["| | " + " | ".join(ways) + " |", "|---" * (len(ways) + 1) + "|"]
    for name, command in COSTS.items():
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(2 * ROUNDS + 1):
            for way, prefix in ways.items():
                start = time.perf_counter()
                subprocess.run([*prefix, *command], check=True, env=environment())
                times[way].append(time.perf_counter() - start)
        medians = " | ".join(f"{statistics.median(times[way]) * 1000:.0f} ms" for way in ways)
        lines.append(f"| {name} | {medians} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
