# SPDX-License-Identifier: Apache-2.0
"""`npubox trace`: every call by name with every field, and what jobs did."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from npubox.tools.ioctls import decode, name_of
from tests.serve.conftest import START, TIMEOUT, Compile, environment, run
from tests.serve.jobs import digits


def trace(*arguments: str, cwd: Path) -> str:
    """What `npubox trace` wrote to its file; the program's own stderr stays empty."""
    command = [sys.executable, "-c", START, "trace", "-o", "trace", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=environment(), timeout=TIMEOUT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return (cwd / "trace").read_text()


def test_json_tells_all_of_one_inference(compiled: Compile, tmp_path: Path) -> None:
    (tmp_path / "job").write_bytes(digits().content)
    output = trace("--json", "--", str(compiled("mesa_like")), "job", "out", cwd=tmp_path)
    events: list[dict[str, Any]] = [json.loads(line) for line in output.splitlines()]
    assert (tmp_path / "out").read_bytes() == digits().expected

    opens = [event for event in events if event["call"] == "open"]
    assert len(opens) == 512
    assert [event["about"]["path"] for event in opens if "result" in event] == ["/dev/accel/accel0"] * 2
    requests = [event["about"]["request"] for event in events if event["call"] == "ioctl"]
    assert requests == [
        "DRM_IOCTL_VERSION",
        "DRM_IOCTL_VERSION",
        "DRM_IOCTL_ETHOSU_DEV_QUERY",
        "DRM_IOCTL_ETHOSU_CMDSTREAM_BO_CREATE",
        "DRM_IOCTL_ETHOSU_BO_CREATE",
        "DRM_IOCTL_ETHOSU_BO_MMAP_OFFSET",
        "DRM_IOCTL_ETHOSU_BO_CREATE",
        "DRM_IOCTL_ETHOSU_BO_MMAP_OFFSET",
        "DRM_IOCTL_ETHOSU_BO_WAIT",
        "DRM_IOCTL_ETHOSU_BO_WAIT",
        "DRM_IOCTL_ETHOSU_SUBMIT",
        "DRM_IOCTL_GEM_CLOSE",
        "DRM_IOCTL_ETHOSU_BO_WAIT",
        "DRM_IOCTL_GEM_CLOSE",
        "DRM_IOCTL_GEM_CLOSE",
    ]
    by_request = {event["about"]["request"]: event for event in events if event["call"] == "ioctl"}
    assert by_request["DRM_IOCTL_VERSION"]["after"]["name"] == "ethosu"
    assert by_request["DRM_IOCTL_ETHOSU_DEV_QUERY"]["after"]["pointer"]["sram_size"] == 393216
    (job,) = by_request["DRM_IOCTL_ETHOSU_SUBMIT"]["fields"]["jobs"]
    assert job["cmd_bo"] == 1
    assert job["region_bo_handles"] == [2, 3, 0, 0, 0, 0, 0, 0]
    assert all(event["result"] == 0 and event["microseconds"] > 0 for event in by_request.values())

    assert [event["call"] for event in events if event["call"] == "mmap"] == ["mmap"] * 2
    (done,) = [event for event in events if event["call"] == "job"]
    assert done["fields"]["error"] == 0
    assert done["fields"]["cycles"] == done["fields"]["device_ns"] > 1000  # at 1 GHz
    assert sum(event["call"] == "release" for event in events) == 2


def test_text_shows_errors_and_polls(tmp_path: Path) -> None:
    code = (
        "import fcntl, os, select\n"
        "fd = os.open('/dev/accel/accel0', os.O_RDWR)\n"
        "try: fcntl.ioctl(fd, 0xC010640C, bytes([0x77]) + bytes(15))\n"
        "except OSError: pass\n"
        "try: fcntl.ioctl(fd, 0xC0086440, bytes(8))\n"
        "except OSError: pass\n"
        "poll = select.poll(); poll.register(fd); poll.poll(0)\n"
    )
    output = trace("--", sys.executable, "-c", code, cwd=tmp_path)
    assert "DRM_IOCTL_GET_CAP, {capability=119, value=0}) = EOPNOTSUPP" in output
    assert "DRM_IOCTL_ETHOSU_DEV_QUERY, {type=NPU_INFO, size=0, pointer=NULL}) = 0 → {size=12}" in output
    assert "poll(/dev/accel/accel0) = 0" in output


def test_a_dma_queue_that_stops_is_told(tmp_path: Path) -> None:
    """No call tells: the program finds an ERROR notification, where it looks for one."""
    code = (
        "from npubox import neuron\n"
        "with neuron.open('/dev/neuron0') as devices, devices[0].ring(3, 7) as ring:\n"
        "    errors = devices[0].notifications(1, neuron.NotificationType.ERROR)\n"
        "    ring.push(1 << 40, 0, 64); ring.start(); errors.wait()\n"
    )
    output = trace("--json", "-m", "inf1.xlarge", "--", sys.executable, "-c", code, cwd=tmp_path)
    (fault,) = [event for line in output.splitlines() if (event := json.loads(line))["call"] == "fault"]
    reason = fault["about"].pop("reason")
    assert fault["about"] == {"node": "/dev/neuron0", "what": "DMA engine 3 queue 7"}
    assert reason == "ADDRESS: DMA read of 64 bytes at 0x10000000000: nothing is there"


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (0xC0406400, "DRM_IOCTL_VERSION"),
        (0xC0106441, "DRM_IOCTL_ETHOSU_BO_CREATE"),
        (0xC02864C3, "DRM_IOCTL_SYNCOBJ_WAIT"),
        (0xC04064A0, "DRM_IOCTL_MODE_GETRESOURCES"),
        (0xC0106499, "0xc0106499"),
        (0x5401, "0x00005401"),
    ],
)
def test_names(request_: int, name: str) -> None:
    assert name_of(request_) == name


def test_what_cannot_be_read_is_said() -> None:
    def nothing(address: int, size: int) -> bytes:
        raise OSError(14, "Bad address")

    assert decode(0xC0406400, 0, nothing, ending=False) == {"argument": "EFAULT"}
    submit = (0x1000).to_bytes(8, "little") + (2).to_bytes(8, "little")

    def argument_only(address: int, size: int) -> bytes:
        if address != 0x10:
            raise OSError(14, "Bad address")
        return submit

    assert decode(0xC0106445, 0x10, argument_only, ending=False)["jobs"] == "EFAULT"


def test_nodes_of_the_host_answer_themselves(compiled: Compile, tmp_path: Path) -> None:
    """No host here has such a node; the one of an outer launch is like any to who only follows calls."""
    (tmp_path / "job").write_bytes(digits().content)
    inner = [sys.executable, "-c", START, "trace", "--host", "--json", "-o", "trace", "--"]
    run(*inner, compiled("mesa_like"), "job", "out", "2", cwd=tmp_path)
    assert (tmp_path / "out").read_bytes() == digits().expected * 2
    events = [json.loads(line) for line in (tmp_path / "trace").read_text().splitlines()]
    assert events[0]["call"] == "note"
    assert "never verified" in events[0]["about"]["text"]

    opens = [event for event in events if event["call"] == "open"]
    assert {event["about"]["path"] for event in opens} == {"/dev/accel/accel0"}
    ioctls = [event for event in events if event["call"] == "ioctl"]
    by_request = {event["about"]["request"]: event for event in ioctls}
    assert by_request["DRM_IOCTL_VERSION"]["after"]["name"] == "ethosu"
    assert by_request["DRM_IOCTL_ETHOSU_DEV_QUERY"]["after"]["pointer"]["sram_size"] == 393216
    submits = [event for event in ioctls if event["about"]["request"] == "DRM_IOCTL_ETHOSU_SUBMIT"]
    assert len(submits) == 2  # both threads are followed
    assert all(event["fields"]["jobs"][0]["cmd_bo"] for event in submits)
    assert all(event["result"] == 0 for event in ioctls)
    mappings = [event for event in events if event["call"] == "mmap"]
    assert all(int(event["after"]["address"], 16) == event["result"] for event in mappings)
    assert len({event["result"] for event in mappings}) == len(mappings) == 4
    assert [event["call"] for event in events].count("close") == len(opens) + 1  # a copy is closed too


@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("os.close(fd)", 0),
        ("sys.exit(7)", 7),
        ("os.kill(os.getpid(), 9)", -9),
        ("os.waitpid(os.fork() or os._exit(0), 0); subprocess.run(['true'], check=True)", 0),
    ],
    ids=["close", "code", "killed", "children"],
)
def test_any_node_of_the_host_can_be_named(tmp_path: Path, code: str, end: int) -> None:
    program = (
        "import fcntl, os, select, subprocess, sys\n"
        "fd = os.open('/dev/null', os.O_RDWR)\n"
        "try: fcntl.ioctl(fd, 0xC010640C, bytes([5]) + bytes(15))\n"
        "except OSError as error: assert error.errno == 25\n"
        "poll = select.poll(); poll.register(fd); poll.poll(0)\n"
    )
    command = [sys.executable, "-c", START, "trace", "--host", "--node", "/dev/null", "-o", "trace"]
    done = subprocess.run(
        [*command, "--", sys.executable, "-c", program + code],
        cwd=tmp_path,
        env=environment(),
        timeout=TIMEOUT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (end, "", "")
    output = (tmp_path / "trace").read_text()
    assert "</dev/null>, DRM_IOCTL_GET_CAP, {capability=PRIME, value=0}) = ENOTTY" in output
    assert "poll(/dev/null) = 1 → {/dev/null=POLLIN|POLLOUT}" in output
    assert ("close(" in output) == (code == "os.close(fd)")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--host", "--", "/no/such/program"), 127, "/no/such/program was not found"),
        (("--host", "--", "/etc/passwd"), 126, "cannot be executed"),
        (("--host", "--machine", "imx93", "--", "true"), 2, "leave --machine and --mailbox out"),
        (("--node", "/dev/null", "--", "true"), 2, "--node is for --host"),
    ],
)
def test_what_cannot_be_traced_is_said(arguments: tuple[str, ...], code: int, says: str) -> None:
    command = [sys.executable, "-c", START, "trace", *arguments]
    done = subprocess.run(
        command,
        env={**environment(), "COLUMNS": "200"},
        timeout=TIMEOUT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code
    assert says in done.stderr
