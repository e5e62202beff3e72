# SPDX-License-Identifier: Apache-2.0
"""How a job of the virtual NPU can end other than at OP_STOP."""

from __future__ import annotations

from dataclasses import dataclass

from npubox.hw.ethosu.registers import Status


class Refused(Exception):  # noqa: N818 - a statement about the command, not a programming error
    """A command that the virtual NPU does not model, or that is not a command: parse error."""

    status = Status.PARSE_ERROR


class WeightsDamaged(Refused):
    """The bytes at a WEIGHT_BASE are no weight stream of the length that the operation needs."""


@dataclass(frozen=True)
class Fault:
    """Why a job stopped: what the control channel reports and STATUS only hints at.

    `offset` is the byte offset of the command in the stream, `address` a device address.
    """

    reason: str
    status: Status
    command: str | None = None
    offset: int | None = None
    address: int | None = None


@dataclass(frozen=True)
class RunReport:
    """One run of the NPU, from CMD.run to its interrupt; times are device time in nanoseconds."""

    cycles: int
    start_ns: int
    end_ns: int
    operations: int
    fault: Fault | None = None
