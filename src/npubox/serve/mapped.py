# SPDX-License-Identifier: Apache-2.0
"""Who still maps a store: the kernel does not tell of munmap, but /proc/PID/maps shows what is left."""

from __future__ import annotations

import os


def mapped_ranges(store: int, ours: frozenset[int]) -> list[tuple[int, int]] | None:
    """The (start, end) offsets of a store's file that any process but `ours` maps.

    None if it cannot be told: a process was born meanwhile, which may have inherited a mapping, or one
    of our own user's does not let us look.
    """
    about = os.fstat(store)
    device = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}"
    key = f" {device} {about.st_ino} "
    before = _processes() - ours
    ranges: list[tuple[int, int]] = []
    for pid in before:
        try:
            with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as maps:
                lines = [line for line in maps if key in line]
        except PermissionError:
            if _owner(pid) == os.geteuid():
                return None
            continue
        except OSError:
            continue
        for line in lines:
            addresses, _, offset = line.split(None, 3)[:3]
            start, end = (int(part, 16) for part in addresses.split("-"))
            ranges.append((int(offset, 16), int(offset, 16) + end - start))
    return None if _processes() - ours - before else ranges


def _processes() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def _owner(pid: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None
