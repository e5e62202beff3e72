# SPDX-License-Identifier: Apache-2.0
"""The register window of an Ethos-U subsystem as the host sees it: mailbox and reset line.

The mailbox has the layout of the low-priority channel of Arm's MHU v1, the simpler of the two controllers
that Arm's stack names: each direction has a status word that one end sets bits of and the other clears.
While it is not zero the receiver's interrupt is raised. Bits carry no data here: bit 0 is the doorbell.
The reset line stands for the reset controller of the device tree's `resets`: one register, ours.
Source: the project's facts (ethosu-linux.md §2.7).
"""

from __future__ import annotations

from enum import IntEnum, IntFlag


class MailboxReg(IntEnum):
    """Byte offsets of 32-bit registers. rx is towards the host (interrupt 0), tx towards the Cortex-M."""

    RX_STAT = 0x000
    RX_SET = 0x008
    """The Cortex-M's to write; a write by the host is ignored."""
    RX_CLR = 0x010
    """Clears bits of RX_STAT. Clear before the queue is read: a message that comes later rings again."""
    TX_STAT = 0x100
    """0 once the Cortex-M has taken the doorbell."""
    TX_SET = 0x108
    TX_CLR = 0x110
    """The Cortex-M's to write; a write by the host is ignored."""
    RESET = 0x400
    """Bit 0 holds the Cortex-M and its NPUs in reset; 1 at power-up."""


REGISTER_WINDOW = 0x1000


class Doorbell(IntFlag):
    RING = 1 << 0


class ResetLine(IntFlag):
    ASSERTED = 1 << 0
