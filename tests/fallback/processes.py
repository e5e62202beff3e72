# SPDX-License-Identifier: Apache-2.0
"""Which worker processes there are."""

from __future__ import annotations

import os

from npubox.fallback import process
from tests.processes import children, command, state

__all__ = ["state", "workers"]


def workers(parent: int | None = None) -> set[int]:
    """The workers that a process started and that are there, zombies too."""
    found = children(parent or os.getpid())
    return {pid for pid in found if state(pid) == "Z" or process.MODULE.encode() in command(pid)}
