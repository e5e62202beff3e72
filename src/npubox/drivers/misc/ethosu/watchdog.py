# SPDX-License-Identifier: Apache-2.0
"""What is watched of a firmware: that it answers pings, and that its oldest inference ends.

Source of the first: the project's facts (ethosu-linux.md §2.5). The second is ours: Arm's driver waits for
ever for an inference that a living firmware has lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from npubox.bus.port import Clock
from npubox.core.lock import DeviceLock
from npubox.drivers.misc.ethosu.deadline import Deadline
from npubox.drivers.misc.ethosu.requests import AnyRequest

MS = 1_000_000


@dataclass(frozen=True)
class Timeouts:
    """Nanoseconds of device time. `inference` is how long the oldest inference may take."""

    capabilities: int = 2000 * MS
    network_info: int = 3000 * MS
    cancel: int = 2000 * MS
    watchdog: int = 3000 * MS
    boot: int = 1000 * MS
    inference: int = 9000 * MS


class Watchdog:
    """Under the device's lock. `silent` is called when nothing changed for `timeouts.watchdog` nanoseconds
    while something is unanswered, `stuck` when one inference has been the oldest for `timeouts.inference`."""

    def __init__(
        self,
        clock: Clock,
        lock: DeviceLock,
        timeouts: Timeouts,
        silent: Callable[[], None],
        stuck: Callable[[], None],
    ) -> None:
        self.pings = 0
        self.oldest: AnyRequest | None = None
        self._inferences = 0
        self.timeouts = timeouts
        self._change = Deadline(clock, lock, silent)
        self._progress = Deadline(clock, lock, stuck)

    def count(self, pings: int = 0, inferences: int = 0) -> None:
        """Messages were sent or answered; with each the period starts afresh."""
        self.pings = max(0, self.pings + pings)
        self._inferences = max(0, self._inferences + inferences)
        if self.pings or self._inferences:
            self._change.set(self.timeouts.watchdog)
        else:
            self._change.clear()

    def watch(self, oldest: AnyRequest | None) -> None:
        """This inference is the oldest now."""
        if oldest is not self.oldest:
            self.oldest = oldest
            self._progress.clear()
            if oldest is not None:
                self._progress.set(self.timeouts.inference)

    def clear(self) -> None:
        """Nothing is unanswered: the firmware was reset, or is gone."""
        self.pings = self._inferences = 0
        self._change.clear()
