# SPDX-License-Identifier: Apache-2.0
"""PUTILS: a core's notification queues as their registers in BAR 0 (facts, neuron.md §7)."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

SIZE = 0x1_0000
ENGINE_INSTANCES = 4


def putils_base(core: int) -> int:
    """BAR 0 offset of a core's block."""
    return 0x40_4000 + core * SIZE


class NotificationType(IntEnum):
    TRACE = 0
    """Implicit notifications, a queue for each engine instance 0..3."""
    NOTIFY = 1
    """Explicit ones, a queue for each engine instance."""
    EVENT = 2
    ERROR = 3


class QueueRegs(NamedTuple):
    """Byte offsets from the block's base. The driver writes base low, base high, size in that order; three
    zeros stop the queue. `size` is in bytes, `head` the device's write position."""

    base_lo: int
    base_hi: int
    size: int
    head: int


def queue_registers(kind: NotificationType, engine: int = 0) -> QueueRegs:
    """The registers of a queue (sub-queue 0); EVENT and ERROR have one queue a core, whatever `engine`."""
    if kind is NotificationType.ERROR:
        return QueueRegs(0x1074, 0x1078, 0x107C, 0x108C)
    if kind is NotificationType.EVENT:
        return QueueRegs(0x1094, 0x1098, 0x109C, 0x10AC)
    base = (0xC7C if kind is NotificationType.TRACE else 0xBFC) + engine * 0x104
    return QueueRegs(base, base + 4, base + 8, base + 0x18)
