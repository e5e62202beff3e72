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
from tests.serve.conftest import START, TIMEOUT, Compile, environment
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
