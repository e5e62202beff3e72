# SPDX-License-Identifier: Apache-2.0
"""System calls on a served node of the reference driver: each answer is the kernel's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.serve.conftest import TIMEOUT, Compile, environment, left

TIERS = pytest.mark.parametrize("tier", ["--tier=A", "--tier=B"])
NOTHING = {"files": 0, "objects": 0, "bytes": 0}
# Most rows are in what a real kernel printed for the same driver (accel-core.md §5.3).
EXPECTED = """
open: 3
GET_CAP: 0
value: 3
NULL: EFAULT
kernel address: EFAULT
straddling: EFAULT
no access: EFAULT
read-only: EFAULT
unchanged: 9
unknown capability: EOPNOTSUPP
unknown core: EINVAL
unknown driver: EINVAL
sign-extended: 0
other type: ENOTTY
size 0: EOPNOTSUPP
FIONREAD: ENOTTY
TCGETS: ENOTTY
FIONBIO: 0
our ioctl on fd 0: ENOTTY
our ioctl on fd 99: EBADF
our ioctl on fd -1: EBADF
dup: 0
number reused: ENOTTY
and back: 0
closed: EBADF
O_RDONLY: 4
O_WRONLY: 6
O_EXCL: EBUSY
O_CREAT|O_EXCL: EEXIST
O_CREAT: 7
O_DIRECTORY: ENOTDIR
O_PATH ioctl: EBADF
accel1: ENOENT
relative: 0
dotted: 0
reopened: 0
CREATE: 0
a file of its own: EINVAL
fopen: 0
fstat: 0
stat: 0
nodes: 1 1, same: 1
statx: 0
statx node: 1
flags: 2
cloexec: 0 1
ftruncate: EINVAL
fallocate: ENODEV
mmap: mapped
mmap too long: EINVAL
mmap middle: EINVAL
mmap offset 0: EINVAL
mmap private: EINVAL
mmap of another file: EACCES
GEM_CLOSE: 0
GEM_CLOSE twice: EINVAL
mmap after close: EACCES
CREATE beside a mapping: 0
other pages: 1
mapping: still here
after close: EBADF
child: 17
the child's handle: 0
read: EAGAIN
write: EINVAL
lseek: 0
pread: EAGAIN
pwrite: EINVAL
F_GETFL: 0104002
copy: 1, cloexec 0
copy: 1, cloexec 0
copy: 1, cloexec 1
in order: 1
poll: 0
select: 1
selected: 0 0 1, in time: 1
select in vain: 0
left: 0
select of a closed file: EBADF
"""
FULL = """
readlink: 17
link: /dev/accel/accel0
O_RDONLY|O_CLOEXEC: 0
dup2: 1
pwrite at a low number: EINVAL
"""
# By default the filter knows served files by their numbers.
NUMBERS = {"open": 1023, "O_RDONLY": 1022, "O_WRONLY": 1021, "O_CREAT": 1020}


def by_default() -> list[str]:
    lines = [line.partition(": ") for line in EXPECTED.strip().split("\n")]
    return [f"{name}: {NUMBERS.get(name, value)}" for name, _, value in lines]


def run(report: Path, program: Path, *arguments: str, options: tuple[str, ...] = ()) -> str:
    """The program's output under the reference machine, nothing being left of it at the end."""
    command = [sys.executable, "-m", "tests.serve.refmachine", str(report), *options, "--", str(program)]
    done = subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=environment(),
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert left(report) == NOTHING
    assert not done.stderr
    return done.stdout


@TIERS
def test_each_call(compiled: Compile, tmp_path: Path, tier: str) -> None:
    output = run(tmp_path / "report", compiled("rules"), options=(tier,))
    assert output.split("\n") == [*by_default(), ""]


@TIERS
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_each_call_as_nobody(compiled: Compile, tier: str) -> None:
    with tempfile.TemporaryDirectory() as directory:  # pytest's own are closed to others
        os.chmod(directory, 0o777)
        program = shutil.copy(compiled("rules"), directory)
        output = run(Path(directory) / "report", Path(program), options=(tier, "--user"))
    assert output.split("\n") == [*by_default(), ""]


@TIERS
def test_full_fidelity(compiled: Compile, tmp_path: Path, tier: str) -> None:
    output = run(tmp_path / "report", compiled("rules"), "full", options=(tier, "--full"))
    assert output.split("\n") == (EXPECTED.strip() + FULL).split("\n")


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("deadline", "past: ETIME\n100 ms: ETIME\nin time: 1\n"),
        ("threads", "errors: 0\n"),
        ("eintr", "WAIT: EINTR\nhandled: 1\n"),
        ("restart", "WAIT: ETIME\nhandled: 1, in time: 1\n"),
        ("storm", "once each: 1, many signals: 1\n"),
        ("stop", "status: 0\n"),
        ("kill", "prompt: 1\n"),
    ],
)
def test_calls_that_block(compiled: Compile, tmp_path: Path, mode: str, expected: str) -> None:
    assert run(tmp_path / "report", compiled("blocked"), mode) == expected


def test_a_drivers_mistake_is_eio_and_no_more(compiled: Compile, tmp_path: Path) -> None:
    script = tmp_path / "crash.py"
    script.write_text(
        "import fcntl, os\n"
        "fd = os.open('/dev/accel/accel0', os.O_RDWR)\n"
        "for _ in range(3):\n"
        "    try: fcntl.ioctl(fd, 0xC0086447, bytes(8))\n"
        "    except OSError as error: print(error.errno)\n"
    )
    report = tmp_path / "report"
    command = [sys.executable, "-m", "tests.serve.refmachine", str(report), "--", sys.executable, str(script)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT, env=environment(), check=True
    )
    assert done.stdout == "5\n5\n5\n"
    assert done.stderr.count("RuntimeError: a driver's mistake") == 3
    assert left(report) == NOTHING
