# SPDX-License-Identifier: Apache-2.0
"""A notification: what the device writes into a notification queue.

The vendor's format is not public (facts, neuron.md §7, §13): this one is npubox's own, 16 bytes.

    0   u8   kind: `NotificationType`, or `START`
    1   u8   bit 0 is the phase: 1 on the first lap of the ring, 0 on the second, and so on; written last
    2   u16  source. EVENT: 0. ERROR of a DMA queue: engine << 4 | queue
    4   u32  id. EVENT: the event's index, its new value in bit 31. ERROR: `ErrorCode`
    8   u64  device time in nanoseconds

The first entry of a queue, written when the driver starts it, is a start record instead: 16 characters that
name the queue, e.g. `NQ2 NOTIFY3.....`; its first two fit the layout (kind `START`, phase 1).

A reader that keeps its place and the phase it expects, 1 first, finds the next entry when the phase bit
says so. A ring that nobody reads is overwritten. The head register counts bytes from the ring's base.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from npubox.hw.neuron.putils import NotificationType

FORMAT = struct.Struct("<BBHIQ")
SIZE = FORMAT.size
PHASE_OFFSET = 1
FIRST_PHASE = 1
START = ord("N")
EVENT_SET = 1 << 31


def start_record(core: int, kind: NotificationType, engine: int) -> bytes:
    """The first entry of a queue; TRACE and NOTIFY queues are named with their engine instance."""
    instance = str(engine) if kind in (NotificationType.TRACE, NotificationType.NOTIFY) else ""
    return f"NQ{core} {kind.name}{instance}".ljust(SIZE, ".").encode()


class ErrorCode(IntEnum):
    """Why a DMA queue stopped; it stays so until it is reset."""

    RING_ID = 1
    """A descriptor of another lap."""
    FIRST_LAST = 2
    """FIRST and LAST do not frame packets."""
    PACKET_DESCRIPTORS = 3
    """More than 128 descriptors in a packet."""
    PACKET_LENGTH = 4
    """More than 0xFFFFF bytes in a packet."""
    TRANSFORM = 5
    """A meta control word, or a control bit, that is not a plain copy: not modelled."""
    ADDRESS = 6
    """Nothing is mapped at an address, or not all of it, or not for writing."""
    REGISTER_ACCESS = 7
    """A transfer to or from registers that is not made of whole, aligned words."""
    RING_FETCH = 8
    """The ring itself is not in memory, or badly shaped."""
    TAIL_OVERFLOW = 9
    """More descriptors announced than the ring holds."""
    DENIED = 10
    """The access gate (`hw.neuron.gate`) does not grant the address to the queue's owner."""
