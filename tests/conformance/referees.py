# SPDX-License-Identifier: Apache-2.0
"""The two referees of the accel core: the probe and IGT's programs, run under `npubox exec` and compared.

IGT's tests and the headers that the probe needs are Debian's packages, unpacked without being installed.
"""

from __future__ import annotations

import difflib
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.recorded import (
    CONFORMANCE,
    RUNS,
    deviations,
    normalised,
    probe_answers,
    recorded_programs,
    verdicts,
)
from tests.debian import Unavailable, cache_directory, through_loader, unpacked, version
from tests.serve.conftest import environment, npubox_exec

SUITES = ("unstable",)
PACKAGES = ("igt-gpu-tools-tests", "linux-libc-dev")
VERIFIED = {"igt-gpu-tools-tests": "2.5-1", "linux-libc-dev": "7.2.13-1"}
"""The versions that docs/conformance.md tells of; the suite moves on."""
HEADERS = {
    name: f"usr/include/{name}" if name != "asm" else "usr/include/x86_64-linux-gnu/asm"
    for name in ("drm", "linux", "asm-generic", "asm")
}
NODE = "/dev/accel/accel0"
LAUNCH = npubox_exec("--machine", "refaccel", "--notify-all", "--")
LAUNCH_CARD = npubox_exec("--machine", "refaccel", "--notify-all", "--card0", "--")
PATIENCE = 600  # seconds for one program


@dataclass(frozen=True)
class Referees:
    """The unpacked packages, and where the probe was built."""

    cache: Path
    root: Path
    probe: Path

    @property
    def versions(self) -> dict[str, str]:
        return {package: version(self.cache, package) for package in PACKAGES}


def obtain() -> Referees:
    """Download, unpack and build, unless that was done before. Raises Unavailable."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise Unavailable("the probe needs a C compiler")
    source = CONFORMANCE / "probe.c"
    if not source.exists():
        raise Unavailable(f"there is no {source} (NPUBOX_SHARED)")
    cache = cache_directory("conformance")
    root = unpacked(cache, SUITES, PACKAGES)
    probe = cache / "probe"
    if not probe.exists():
        # The whole include directory clashes with the C library of an older Debian.
        include = cache / "include"
        include.mkdir(exist_ok=True)
        for name, path in HEADERS.items():
            (include / name).unlink(missing_ok=True)
            (include / name).symlink_to(root / path)
        command = [compiler, "-w", "-o", str(probe), str(source), "-isystem", str(include), "-lpthread"]
        subprocess.run(command, check=True)
    return Referees(cache, root, probe)


@dataclass(frozen=True)
class Comparison:
    """Names or lines that are as recorded, those that differ as listed, and what is wrong."""

    equal: int
    deviating: int
    wrong: tuple[str, ...]


def compare_probe(probe: Path, run: str, launch: Sequence[str] = LAUNCH) -> Comparison:
    """One run of the probe, line by line; `launch` is what starts it."""
    real = probe_answers(run)
    ours = normalised(_output([*launch, str(probe), NODE, *RUNS[run]]))
    allowed = {(line.real, line.ours) for line in deviations().lines if run in line.runs}
    seen: set[tuple[str, str]] = set()
    equal, wrong = 0, []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, real, ours, autojunk=False).get_opcodes():
        if kind == "equal":
            equal += b - a
            continue
        pairs = set(zip(real[a:b], ours[c:d], strict=True)) if b - a == d - c else set()
        seen |= pairs & allowed
        if not pairs or pairs - allowed:
            wrong += [f"- {line}" for line in real[a:b]] + [f"+ {line}" for line in ours[c:d]]
    wrong += [f"listed as a deviation, but is not: {pair[1]}" for pair in allowed - seen]
    return Comparison(equal, len(seen), tuple(wrong))


def compare_program(referees: Referees, program: str) -> Comparison:
    """One of IGT's programs, subtest by subtest."""
    real = recorded_programs()[program]
    path = referees.root / "usr/libexec/igt-gpu-tools" / program
    ours = verdicts(_output([*LAUNCH_CARD, *through_loader(referees.root, path)]))
    wrong = [
        f"{program}@{name}: {ours.get(name, 'missing')} instead of {verdict}"
        for name, verdict in real.items()
        if ours.get(name) != verdict
    ]
    wrong += [f"{program}@{name}: {ours[name]}, not recorded" for name in ours.keys() - real.keys()]
    return Comparison(len(real) - len(wrong), 0, tuple(wrong))


def programs() -> Iterator[str]:
    """The programs that are compared."""
    left_out = deviations().programs
    return (program for program in recorded_programs() if program not in left_out)


def igt_version(referees: Referees) -> str:
    """As IGT's programs print it themselves."""
    path = referees.root / "usr/libexec/igt-gpu-tools/core_getversion"
    output = _output([*LAUNCH_CARD, *through_loader(referees.root, path)])
    match = re.search(r"^IGT-Version: (\S+)", output, re.MULTILINE)
    return match[1] if match else "unknown"


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PATIENCE,
        env=environment(),
        check=False,
    )
    return done.stdout.decode(errors="replace")
