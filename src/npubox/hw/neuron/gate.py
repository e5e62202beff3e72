# SPDX-License-Identifier: Apache-2.0
"""The access gate: which device addresses a queue's descriptors may reach. An npubox extension.

A real Inferentia has nothing like it: whoever may write a ring reaches everything. These registers, in
BAR 0 behind MISC RAM where the real chip has none, let a driver isolate processes: it gives each queue an
owner and grants address ranges to owners; the engine checks each descriptor, and each descriptor fetch,
when it executes. Owner 0, from reset on, is not checked.

To grant or revoke: write START and SIZE, then COMMAND. A revoked range is one that was granted, exactly.
DROP takes an owner's ranges and queues back at once; START and SIZE do not matter then. A refused command
reads back in RESULT. Addresses are device addresses, with the window in bits 47:46 and without port bit.
"""

from __future__ import annotations

from enum import IntEnum

BASE = 0x79_0000
"""BAR 0 offset."""
SIZE = 0x1000
MAGIC = 0x4E50_4247
OWNERS = 0x1_0000


class GateReg(IntEnum):
    """Byte offsets from `BASE`."""

    ID = 0x000
    """Reads `MAGIC`."""
    START_LO = 0x004
    START_HI = 0x008
    SIZE_LO = 0x00C
    SIZE_HI = 0x010
    COMMAND = 0x014
    """`Command` in bits 31:16, the owner in bits 15:0."""
    RESULT = 0x018
    """Of the last command: `Result`."""


class Command(IntEnum):
    GRANT = 1
    REVOKE = 2
    DROP = 3


class Result(IntEnum):
    OK = 0
    NO_SUCH_RANGE = 1
    OVERLAP = 2
    BAD_COMMAND = 3


def owner_register(engine: int, queue: int) -> int:
    """Offset from `BASE` of the word that names a queue's owner."""
    return 0x100 + (engine * 16 + queue) * 4
