# SPDX-License-Identifier: Apache-2.0
"""A launch stands for its program: exit code, signals, stdio, terminal; and what survives whom."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import children, wait_gone
from tests.serve.conftest import Compile, environment, npubox_exec, run

OPEN = "import fcntl, os, sys; fd = os.open('/dev/accel/accel0', os.O_RDWR); "
ASK = "fcntl.ioctl(fd, 0xC010640C, bytes([5]) + bytes(15))"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A launch with pipes; killed at the end if it still runs."""
    process = subprocess.Popen(
        npubox_exec("--", *command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_exit_code_and_stdio() -> None:
    done = run("sh", "-c", "cat; echo out; echo err >&2; exit 7", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_what_cannot_be_run(tmp_path: Path) -> None:
    done = run("no-such-program", check=False)
    assert done.returncode == 127
    assert done.stderr == "npubox: cannot run no-such-program: No such file or directory\n"
    plain = tmp_path / "plain"
    plain.write_text("#!/bin/sh\n")
    done = run(plain, check=False)
    assert done.returncode == 126
    assert "Permission denied" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL, signal.SIGSEGV])
def test_killed_by_a_signal(number: signal.Signals) -> None:
    assert run("sh", "-c", f"kill -{int(number)} $$", check=False).returncode == -number


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2])
def test_signals_reach_the_program(number: signal.Signals) -> None:
    code = (
        "import signal, sys\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(42))\n"
        "print('ready', flush=True)\n"
        "signal.pause()"
    )
    with started(*python(code)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        assert process.wait(10) == 42


def test_a_terminal_is_the_programs(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, time\n"
        "try:\n"
        "    print(os.isatty(0), os.ttyname(0) == sys.argv[1], os.getpgrp() == os.tcgetpgrp(0), flush=True)\n"
        "    time.sleep(30)\n"
        "except KeyboardInterrupt: print('interrupted', flush=True); time.sleep(0.5); sys.exit(3)\n"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        arguments = npubox_exec("--", *python(code), os.ttyname(0))
        os.execve(arguments[0], arguments, environment())
    output = b""
    while b"True True True" not in output:
        output += os.read(terminal, 1000)
    os.write(terminal, b"\x03")
    while b"interrupted" not in output:
        output += os.read(terminal, 1000)
    _, status = os.waitpid(pid, 0)
    assert output.count(b"interrupted") == 1
    assert os.waitstatus_to_exitcode(status) == 3
    os.close(terminal)


def test_stop_and_continue() -> None:
    code = "import os, signal; print('ready', flush=True); os.kill(os.getpid(), signal.SIGSTOP); print('on')"
    with started(*python(code)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        process.send_signal(signal.SIGCONT)
        assert process.stdout.read() == "on\n"
        assert process.wait(10) == 0


def test_who_outlives_the_program_is_still_served(tmp_path: Path) -> None:
    later = f"import time; time.sleep(0.5); {OPEN}{ASK}; open('{tmp_path}/done', 'w').close()"
    code = (
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {later!r}], stdout=-3, stderr=-3)"
    )
    start = time.monotonic()
    assert run(*python(code)).returncode == 0
    deadline = start + 60
    while not (tmp_path / "done").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_killing_the_launch_kills_the_program() -> None:
    with started(*python("import os, time; print(os.getpid(), flush=True); time.sleep(60)")) as process:
        assert process.stdout is not None
        program = int(process.stdout.readline())
        (supervisor,) = children(process.pid)
        process.kill()
        process.wait(10)
        wait_gone(program)
        wait_gone(supervisor)


def test_when_the_supervisor_dies() -> None:
    code = (
        f"{OPEN}{ASK}; print(os.getpid(), flush=True); sys.stdin.readline()\n"
        f"try: {ASK}\n"
        "except OSError as error: print(error.errno, flush=True)\n"
        "sys.exit(9)"
    )
    with started(*python(code)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (supervisor,) = children(process.pid)
        (device,) = [pid for pid in children(supervisor) if b"device_process" in _command(pid)]
        os.kill(supervisor, signal.SIGKILL)
        output, errors = process.communicate("\n", timeout=10)
        assert output == "38\n"  # ENOSYS
        assert "the supervisor died" in errors
        assert process.returncode == 9
        wait_gone(device)


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_when_the_device_dies(compiled: Compile) -> None:
    code = (
        f"{OPEN}{ASK}; print('ready', flush=True); sys.stdin.readline()\n"
        f"try: {ASK}\n"
        "except OSError as error: print(error.errno)\n"
        "try: os.open('/dev/accel/accel0', os.O_RDWR)\n"
        "except OSError as error: print(error.errno)\n"
    )
    with started(*python(code)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (supervisor,) = children(process.pid)
        (device,) = [pid for pid in children(supervisor) if b"device_process" in _command(pid)]
        os.kill(device, signal.SIGKILL)
        time.sleep(0.3)
        output, _ = process.communicate("\n", timeout=10)
        assert output == "19\n19\n"  # ENODEV


def test_a_launch_in_a_launch_is_served_by_the_outer_one() -> None:
    inner = npubox_exec("--", *python(f"{OPEN}{ASK}; print('served')"))
    assert run(*inner).stdout == "served\n"


def test_the_tree_goes_with_the_launch(tmp_path: Path) -> None:
    done = run("sh", "-c", "cat /sys/class/accel/accel0/dev /sys/dev/char/261:0/uevent; ls /dev/accel")
    assert done.stdout == "261:0\nMAJOR=261\nMINOR=0\nDEVNAME=accel/accel0\nDEVTYPE=accel_minor\naccel0\n"
    assert not Path("/dev/accel").exists() or "accel0" not in os.listdir("/dev/accel")


def test_numbers_where_ours_run_out(tmp_path: Path) -> None:
    """Served files have numbers of their own, but the limit of the program and what is free come first."""
    code = (
        "import fcntl, os, resource, struct\n"
        "def cap(fd): return struct.unpack('QQ', fcntl.ioctl(fd, 0xC010640C, struct.pack('QQ', 5, 0)))[1]\n"
        "def node(): return os.open('/dev/accel/accel0', os.O_RDWR)\n"
        "many = [node() for _ in range(600)]\n"
        "assert many[:3] == [1023, 1022, 1021] and len(set(many)) == 600, many\n"
        "assert sum(fd < 512 for fd in many) >= 88 and all(map(cap, many))\n"
        "low = os.dup2(many[0], 400)\n"
        "assert cap(low) == 3\n"
        "for fd in many: os.close(fd)\n"
        "assert cap(low) == 3\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "small = node()\n"
        "assert small < 64 and cap(small) == 3 and fcntl.fcntl(small, fcntl.F_DUPFD, 10) == 10\n"
        "print('all')\n"
    )
    limited = ["sh", "-c", 'ulimit -n 2048; exec "$@"', "sh", sys.executable, "-c", code]
    assert run(*limited).stdout == "all\n"
