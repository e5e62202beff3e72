# SPDX-License-Identifier: Apache-2.0
"""Which worker processes there are."""

from __future__ import annotations

import os
from pathlib import Path

from npubox.fallback import process


def workers(parent: int | None = None) -> set[int]:
    """The workers that a process started and that are there, zombies too."""
    mine = str(parent or os.getpid())
    found = set()
    for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        # Not through task/TID/children: a child moves to another thread's when its own thread ends.
        fields = stat(pid)
        if fields[1:2] == [mine] and (fields[0] == "Z" or process.MODULE.encode() in command(pid)):
            found.add(pid)
    return found


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
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
