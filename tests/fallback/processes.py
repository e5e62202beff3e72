# SPDX-License-Identifier: Apache-2.0
"""Which worker processes there are."""

from __future__ import annotations

import os
from pathlib import Path

from npubox.fallback import process


def workers(parent: int | None = None) -> set[int]:
    """The workers that a process started and that are there, zombies too."""
    found = set()
    for tid in Path(f"/proc/{parent or os.getpid()}/task").iterdir():
        for pid in map(int, (tid / "children").read_text().split()):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if process.MODULE.encode() in command or state(pid) == "Z":
                found.add(pid)
    return found


def state(pid: int) -> str:
    """As in /proc: R, S, T, Z; empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""
