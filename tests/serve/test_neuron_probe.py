# SPDX-License-Identifier: Apache-2.0
"""The program that was run on the real Neuron module in a VM, under `npubox exec`: the same answers.

Its 302 checks expect the module's own, defects included; strict answers differ in a documented list.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.networks import SHARED
from tests.serve.conftest import TIMEOUT, environment, npubox_exec

PROBE = SHARED / "conformance" / "neuron" / "neuron_probe.c"
GROUPS = "mbMdnxrp"
CHECKS = 302
STRICTLY_DIFFERENT = {
    "QUEUE_RELEASE NULL [want 8/0]": "any argument that cannot be copied",
    "DEVICE_BDF NULL: positive [want 8/0]": "any argument that cannot be copied",
    "positive count": "any argument that cannot be copied",
    "MEM_ALLOC NULL EACCES [want -1/13]": "any argument that cannot be copied",
    "DMA_QUEUE_INIT NULL EACCES [want -1/13]": "any argument that cannot be copied",
    "DMA_QUEUE_INIT_BATCH NULL [want -1/13]": "any argument that cannot be copied",
    "BAR_WRITE misc 1d8 (not protected) [want 0/0]": "BAR_WRITE to the firmware's registers",
    "EVENT_GET 256 [want 0/0]": "EVENT_SET, EVENT_GET of event 256",
    "EXT_INFO bad +22 [want 22/0]": "MEM_GET_EXTENDED_INFO",
    "size 0 copies 64K": "MEM_COPY of 0 bytes",
    "SET_STATE 1 ignored [want 0/0]": "DMA_ENG_SET_STATE to an unknown state",
    "SET_STATE 4 ignored [want 0/0]": "DMA_ENG_SET_STATE to an unknown state",
}
"""What the probe calls each difference, and the line of docs/neuron.md that tells of it."""


@dataclass(frozen=True)
class Verdict:
    different: set[str]
    result: str


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Verdict]:
    """The probe on three machines at once: it mostly sleeps."""
    compiler = shutil.which("cc")
    if not PROBE.exists():
        pytest.skip(f"needs {PROBE}")
    if compiler is None:
        pytest.skip("needs a C compiler")
    directory = tmp_path_factory.mktemp("neuron-probe")
    probe = directory / "probe"
    subprocess.run([compiler, "-O1", "-w", "-pthread", "-o", str(probe), str(PROBE)], check=True)
    running = {
        (policy, revision): _start(directory, probe, policy, revision)
        for policy, revision in (("module", 0), ("module", 255), ("strict", 0))
    }
    return {key: _verdict(process) for key, process in running.items()}


def _start(directory: Path, probe: Path, policy: str, revision: int) -> subprocess.Popen[str]:
    machine = directory / f"{policy}-{revision}.toml"
    machine.write_text(
        f'description = "one chip"\npolicy = "{policy}"\n'
        f"[[neuron]]\ndevice = 0x7064\nrevision = {revision}\nslot = 1\n"
    )
    return subprocess.Popen(
        npubox_exec("-m", machine, "--", probe, str(revision), GROUPS),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )


def _verdict(process: subprocess.Popen[str]) -> Verdict:
    output, _ = process.communicate(timeout=TIMEOUT)
    lines = output.splitlines()
    different = {line.removeprefix("DIFF ").split("  (ret ")[0] for line in lines if line.startswith("DIFF ")}
    result = next((line for line in lines if line.startswith("RESULT ")), output)
    return Verdict(different, result)


@pytest.mark.parametrize("revision", [0, 255])
def test_module_answers(verdicts: dict[tuple[str, int], Verdict], revision: int) -> None:
    verdict = verdicts["module", revision]
    assert (verdict.different, verdict.result) == (set(), f"RESULT ok {CHECKS} diff 0")


def test_strict_answers(verdicts: dict[tuple[str, int], Verdict]) -> None:
    verdict = verdicts["strict", 0]
    assert verdict.different == set(STRICTLY_DIFFERENT)
    count = len(STRICTLY_DIFFERENT)
    assert verdict.result == f"RESULT ok {CHECKS - count} diff {count}"


def test_the_differences_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "neuron.md").read_text("utf-8")
    documented = {line.split("|")[1].strip() for line in page.splitlines() if line.startswith("|")}
    assert set(STRICTLY_DIFFERENT.values()) <= documented
