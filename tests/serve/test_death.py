# SPDX-License-Identifier: Apache-2.0
"""Supervisor or device killed under a program that waits or calls: an error at once, and nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from npubox.serve.workspace import PREFIX, YOUNG
from tests.processes import children, wait_gone
from tests.serve.conftest import CLIENTS, START, TIMEOUT, environment, npubox_exec, run
from tests.serve.jobs import digits

ROOT = Path(__file__).parents[2]
AT_ONCE = 2.0  # seconds, on a busy host
ENDS = {
    ("wait", "device"): "BO_WAIT: ENODEV\nGET_CAP: ENODEV\nopen: ENODEV\nmapping: mine\n",
    ("wait", "supervisor"): "BO_WAIT: ENOSYS\nGET_CAP: ENOSYS\nopen: ENOSYS\nmapping: mine\n",
    ("loop", "device"): "loop: ENODEV\nGET_CAP: ENODEV\nopen: ENODEV\nmapping: mine\n",
    ("loop", "supervisor"): "loop: ENOSYS\nGET_CAP: ENOSYS\nopen: ENOSYS\nmapping: mine\n",
}

SERVED_ENDS = {
    ("wait", "server"): "BO_WAIT: ENODEV\nGET_CAP: ENODEV\nopen: ENODEV\nmapping: mine\n",
}
FIRST_OFFSET = (
    "import os; from tests.clients.fcntl_only import *; fd = os.open('/dev/accel/accel0', os.O_RDWR); "
    "handle = call(fd, BO_CREATE, 'QII', 4096, 0, 0)[2]; "
    "print(hex(call(fd, BO_MMAP_OFFSET, 'IIQ', handle, 0, 0)[2]))"
)


def family(pid: int) -> list[int]:
    """A process and all below it."""
    return [pid, *(member for child in children(pid) for member in family(child))]


def is_device(pid: int) -> bool:
    return b"device_process" in Path(f"/proc/{pid}/cmdline").read_bytes()


def directories(pid: int) -> list[Path]:
    """The directories of the launch that this supervisor holds."""
    links = [Path(os.readlink(entry)) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    return [link for link in links if link.name.startswith(PREFIX)]


@contextmanager
def bereft(job: Path, mode: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A launch of the client whose node works; killed at the end if it still runs."""
    command = [sys.executable, "-m", "tests.clients.bereft", str(job), mode]
    process = subprocess.Popen(
        npubox_exec(*options, "--", *command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=ROOT,
        start_new_session=True,  # a group with a stopped member and no parent gets SIGHUP: not ours
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("victim", ["supervisor", "device"])
@pytest.mark.parametrize("mode", ["wait", "loop"])
@pytest.mark.parametrize("tier", [(), ("--seccomp-only",)], ids=["namespace", "seccomp"])
def test_an_error_at_once(tmp_path: Path, mode: str, victim: str, tier: tuple[str, ...]) -> None:
    job = tmp_path / "job"
    job.write_bytes(digits().content)
    with bereft(job, mode, *tier) as process:
        (supervisor,) = children(process.pid)
        (device,) = [pid for pid in children(supervisor) if is_device(pid)]
        everybody, held = family(process.pid), directories(supervisor)
        assert len(everybody) == 4
        assert len(held) == 2, held
        if mode == "wait":
            os.kill(device, signal.SIGSTOP)  # so that the job does not end
        assert killed_under(process, supervisor if victim == "supervisor" else device) == ENDS[mode, victim]
        wait_gone(*everybody, reaped=False)
    if victim == "supervisor":
        sweep(held)
    assert not [path for path in held if path.exists()]


def killed_under(process: subprocess.Popen[str], victim: int) -> str:
    """What the client says when the victim is killed in the middle of what it does."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() in ("waiting\n", "looping\n")
    time.sleep(0.2)
    start = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    output, _ = process.communicate(timeout=TIMEOUT)
    assert time.monotonic() - start < AT_ONCE
    assert process.returncode == 0
    return output


def sweep(held: list[Path]) -> None:
    """Who was killed cannot tidy up: the next launch does, once they are old enough to be nobody's."""
    past = time.time() - 2 * YOUNG
    for path in held:
        if path.exists():
            os.utime(path, (past, past))
    run(sys.executable, "-c", "import os; os.close(os.open('/dev/accel/accel0', os.O_RDWR))")


@contextmanager
def served() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A machine of `npubox serve`: its name and its process, which is gone at the end."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    process = subprocess.Popen(
        [sys.executable, "-c", START, "serve", name],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert name in process.stdout.readline()
        yield name, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIMEOUT)


@pytest.mark.parametrize("mode", ["wait", "loop"])
@pytest.mark.parametrize("victim", ["server", "device"])
def test_an_error_at_once_from_a_machine_that_is_served(tmp_path: Path, mode: str, victim: str) -> None:
    job = tmp_path / "job"
    job.write_bytes(digits().content)
    with served() as (name, server), bereft(job, mode, "--machine", name) as process:
        (device,) = [pid for pid in children(server.pid) if is_device(pid)]
        everybody = [*family(process.pid), device]
        if mode == "wait":
            os.kill(device, signal.SIGSTOP)
        found = killed_under(process, server.pid if victim == "server" else device)
        assert found == (SERVED_ENDS.get((mode, victim)) or ENDS[mode, "device"])
        with suppress(ProcessLookupError):
            os.kill(device, signal.SIGCONT)
        wait_gone(*everybody, reaped=False)


def test_a_served_machine_loses_nothing_to_a_dead_supervisor(tmp_path: Path) -> None:
    job = tmp_path / "job"
    job.write_bytes(digits().content)
    with served() as (name, server):
        (device,) = [pid for pid in children(server.pid) if is_device(pid)]
        with bereft(job, "wait", "--machine", name) as process:
            os.kill(device, signal.SIGSTOP)
            (supervisor,) = children(process.pid)
            held = directories(supervisor)
            assert killed_under(process, supervisor) == ENDS["wait", "supervisor"]
        os.kill(device, signal.SIGCONT)
        for _ in range(2):
            client = [sys.executable, str(CLIENTS / "fcntl_only.py"), "job", "out"]
            run(*client, options=("--machine", name), cwd=tmp_path)
            assert (tmp_path / "out").read_bytes() == digits().expected
        first = run(sys.executable, "-c", FIRST_OFFSET, options=("--machine", name), cwd=ROOT).stdout
        assert first == "0x100000000\n"  # no buffer object is left before it
        sweep(held)
    assert not [path for path in held if path.exists()]
