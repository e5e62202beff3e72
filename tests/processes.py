# SPDX-License-Identifier: Apache-2.0
"""What /proc says of processes; how ours becomes another user's."""

from __future__ import annotations

import codecs
import ctypes
import os
import time
from pathlib import Path

NOBODY = 65534
PR_SET_DUMPABLE = 4
PATIENCE = 10
"""Seconds: only a test that fails waits so long."""


def children(parent: int) -> list[int]:
    """The processes that a process started and that are there, zombies too.

    Not from task/TID/children: a child moves to another thread's when its own thread ends.
    """
    found = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in found if stat(pid)[1:2] == [str(parent)]]


def state(pid: int) -> str:
    """As in /proc: R, S, T, Z; empty where there is no such process."""
    return "".join(stat(pid)[:1])


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def command(pid: int) -> bytes:
    """Its words, each with a NUL behind it."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def wait_gone(*pids: int, reaped: bool = True) -> None:
    """Fails for processes that stay; `reaped`: a zombie is still one."""
    gone = "" if reaped else "Z"
    deadline = time.monotonic() + PATIENCE
    while left := [pid for pid in pids if state(pid) not in ("", gone)]:
        assert time.monotonic() < deadline, f"left: {left}"
        time.sleep(0.01)


def become_nobody() -> None:
    for encoding in ("ascii", "utf-8"):
        codecs.lookup(encoding)  # nobody may not be able to read Python's own files
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # or our own /proc files would be root's
