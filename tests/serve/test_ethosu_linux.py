# SPDX-License-Identifier: Apache-2.0
"""Programs of Arm's stack under `npubox exec`: the bits of every generation of the ABI, several NPUs."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.networks import SHARED_NAMES, compiled_by_vela, shared_network
from tests.serve.conftest import CLIENTS, TIMEOUT, Compile, environment, npubox_exec, run
from tests.serve.test_serve import Served
from tests.serve.test_trace import trace
from tests.vectors import DIGITS, Vector, digits_vectors, shared_vectors

MACHINE = ("-m", "imx93-linux")
FILES = ("network.tflite", "ifm")
GENERATIONS = ("arm", "nxp", "nxp-arena", "staging")


def write(
    directory: Path, content: bytes, vectors: list[Vector], accelerator: str = "ethos-u65-256"
) -> bytes:
    """The files of the C++ client; the outputs to expect."""
    network = compiled_by_vela(content, accelerator)
    (directory / "network.tflite").write_bytes(network.content)
    (directory / "ifm").write_bytes(b"".join(array.tobytes() for v in vectors for array in v.inputs))
    return b"".join(array.tobytes() for v in vectors for array in v.outputs)


@pytest.mark.parametrize("tier", [(), ("--seccomp-only",)], ids=["namespace", "seccomp"])
def test_every_generation(compiled: Compile, tmp_path: Path, tier: tuple[str, ...]) -> None:
    """All in one launch; the last runs the network that is in the firmware."""
    expected = write(tmp_path, (DIGITS / "digits.tflite").read_bytes(), digits_vectors(8))
    client = compiled("arm_runner")
    script = "".join(f"{client} {g} /dev/ethosu0 network.tflite ifm {g} && " for g in GENERATIONS)
    script += f"{client} arm /dev/ethosu0 @0 ifm index"
    run("/bin/sh", "-c", script, options=(*MACHINE, *tier), cwd=tmp_path)
    for result in (*GENERATIONS, "index"):
        assert (tmp_path / result).read_bytes() == expected, result


@pytest.mark.shared
def test_shared_networks_of_every_generation(compiled: Compile, tmp_path: Path) -> None:
    client = compiled("arm_runner")
    expected, script = {}, []
    for name in SHARED_NAMES:
        directory = tmp_path / name
        directory.mkdir()
        expected[name] = write(directory, shared_network(name).read_bytes(), shared_vectors(name)[:2])
        files = f"/dev/ethosu0 {name}/network.tflite {name}/ifm {name}"
        script += [f"{client} {generation} {files}/{generation}" for generation in GENERATIONS]
    run("/bin/sh", "-c", " && ".join(script), options=MACHINE, cwd=tmp_path)
    for name, outputs in expected.items():
        for generation in GENERATIONS:
            assert (tmp_path / name / generation).read_bytes() == outputs, (name, generation)


@pytest.mark.shared
def test_shared_networks_from_python(tmp_path: Path) -> None:
    names = [shared_network(name).stem for name in SHARED_NAMES]
    folder = shared_network(names[0]).parent
    run(
        sys.executable,
        CLIENTS / "all_networks.py",
        "/dev/ethosu0",
        folder,
        *names,
        options=MACHINE,
        cwd=tmp_path,
    )
    for name in names:
        with np.load(tmp_path / f"{name}.npz") as got:
            for number, vector in enumerate(shared_vectors(name)):
                for index, output in enumerate(vector.outputs):
                    np.testing.assert_array_equal(got[f"output{index}_{number}"], output)


def test_what_sysfs_shows(tmp_path: Path) -> None:
    script = (
        "set -e; ls /sys/class/ethosu; cat /sys/class/ethosu/ethosu0/dev /sys/class/ethosu/ethosu0/uevent;"
        "cat /sys/class/ethosu/ethosu0/device/uevent"
    )
    shown = run("/bin/sh", "-c", script, options=MACHINE).stdout
    assert shown.startswith("ethosu0\n511:0\nMAJOR=511\nMINOR=0\nDEVNAME=ethosu0\n")
    assert "OF_COMPATIBLE_0=arm,ethosu\n" in shown


def test_trace_tells_calls_and_messages(compiled: Compile, tmp_path: Path) -> None:
    """The calls of Arm's runner (facts, ethosu-linux.md §3.3), and what they made driver and firmware say."""
    (tmp_path / "ifm").write_bytes(digits_vectors(1)[0].inputs[0].tobytes())
    command = [str(compiled("arm_runner")), "arm", "/dev/ethosu0", "@0", "ifm", "ofm"]
    output = trace("--json", "--mailbox", *MACHINE, "--", *command, cwd=tmp_path)
    events: list[dict[str, Any]] = [json.loads(line) for line in output.splitlines()]
    requests = [event["about"]["request"] for event in events if event["call"] == "ioctl"]
    once = "PING", "VERSION_REQ", "CAPABILITIES_REQ", "NETWORK_CREATE", "NETWORK_INFO", "INFERENCE_CREATE"
    buffers = "BUFFER_CREATE", "BUFFER_SET", "BUFFER_GET", "BUFFER_CREATE", "BUFFER_GET", "BUFFER_GET"
    expected = Counter([*once, *buffers, "INFERENCE_STATUS", "INFERENCE_STATUS"])
    assert Counter(request.removeprefix("ETHOSU_IOCTL_") for request in requests) == expected
    created = next(e for e in events if e["about"].get("request") == "ETHOSU_IOCTL_INFERENCE_CREATE")
    assert len(created["fields"]["ifm_fd"]) == len(created["fields"]["ofm_fd"]) == 1, "garbage is not shown"
    messages = [(e["about"]["way"], e["about"]["message"]) for e in events if e["call"] == "message"]
    for name in ("VERSION", "CAPABILITIES", "NETWORK_INFO", "INFERENCE"):
        assert ("to the firmware", f"{name}_REQ") in messages
        assert ("from the firmware", f"{name}_RSP") in messages
    answer = next(e for e in events if e["about"].get("message") == "INFERENCE_RSP")
    assert (answer["fields"]["status"], answer["fields"]["ofm_size"]) == ("OK", [10])
    (job,) = [e for e in events if e["call"] == "job"]
    assert job["fields"]["cycles"] == 7368


def test_eight_inferences_of_four_processes_on_two_npus(compiled: Compile, tmp_path: Path) -> None:
    """And so three times over: all correct, none lost, both NPUs used."""
    vectors = digits_vectors(6)
    expected = write(tmp_path, (DIGITS / "digits.tflite").read_bytes(), vectors, "ethos-u55-256")
    client = compiled("arm_runner")
    each = " & ".join(f"{client} arm /dev/ethosu0 network.tflite ifm {n}" for n in range(4))
    output = trace("--json", "-m", "two-subsystems", "--", "/bin/sh", "-c", f"{each} & wait", cwd=tmp_path)
    for number in range(4):
        assert (tmp_path / str(number)).read_bytes() == expected
    jobs = [event["fields"] for event in map(json.loads, output.splitlines()) if event["call"] == "job"]
    assert [job["error"] for job in jobs] == [0] * 24
    assert {job["npu"] for job in jobs} == {0, 1}


def test_launches_at_once_on_a_served_machine(compiled: Compile, tmp_path: Path) -> None:
    """Descriptors, mappings and polls of each generation reach a machine in another process too."""
    expected = write(tmp_path, (DIGITS / "digits.tflite").read_bytes(), digits_vectors(2), "ethos-u55-256")
    client = compiled("arm_runner")
    machine = Served(f"test-{uuid.uuid4().hex[:8]}", "--preset", "two-subsystems")
    try:
        launches = [
            subprocess.Popen(
                npubox_exec(*machine.options, "--", client, generation, "/dev/ethosu0", *FILES, generation),
                cwd=tmp_path,
                env=environment(),
                stdout=subprocess.DEVNULL,
            )
            for generation in GENERATIONS
        ]
        assert [launch.wait(TIMEOUT) for launch in launches] == [0] * len(GENERATIONS)
    finally:
        machine.stop()
    for generation in GENERATIONS:
        assert (tmp_path / generation).read_bytes() == expected, generation
