# SPDX-License-Identifier: Apache-2.0
"""How a subsystem can go wrong: by what it is given, and by order."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import Enum

from npubox.devices.ethosu_npu.faults import Fault
from npubox.hw.ethosu.core_interface import CoreStatus


class Failure(Exception):  # noqa: N818 - a statement about what the host asked for
    """The firmware cannot do what a request asks for; the text says why. The answer is an error status."""


class PoweredOff(Exception):  # noqa: N818 - a reset, not an error
    """The subsystem was reset while something went on."""


class SubsystemInjection(Enum):
    """Faults that the control channel can order. The answer meant is the next one that is no PONG."""

    DROP_RESPONSE = "drop response"
    LATE_RESPONSE = "late response"
    WRONG_ID = "wrong id"
    WRONG_MAGIC = "wrong magic"
    CORRUPT_INDEX = "corrupt index"
    HANG = "firmware hang"
    """From the next message on the firmware does nothing any more."""
    NPU_HANG = "hang"
    """The next NPU operator makes no progress."""
    NPU_BUS_ERROR = "bus error"
    """The next NPU operator ends in a bus error."""


class Injections:
    """The fault that is ordered, until it happens."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ordered: SubsystemInjection | None = None

    def order(self, injection: SubsystemInjection) -> None:
        """Takes the place of one that has not happened yet."""
        with self._lock:
            self._ordered = injection

    def take(self, *kinds: SubsystemInjection) -> SubsystemInjection | None:
        """The fault ordered, where it is of these kinds: it happens now."""
        with self._lock:
            if self._ordered not in kinds:
                return None
            taken, self._ordered = self._ordered, None
            return taken


@dataclass(frozen=True)
class InferenceReport:
    """What became of an inference, for the control channel: more than its answer tells the host.

    Times are device time in nanoseconds, `cycles` those of all its NPU operators. `reason` says why it
    failed; `fault` is the NPU's, where it was one.
    """

    user_arg: int
    npu: int
    start_ns: int
    end_ns: int
    cycles: int
    status: CoreStatus
    reason: str | None = None
    fault: Fault | None = None
