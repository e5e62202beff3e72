# SPDX-License-Identifier: Apache-2.0
"""The power sample in MISC RAM: how busy the chip was (facts, neuron.md §8.1, §8.4)."""

from __future__ import annotations

from collections.abc import Callable

from npubox.bus.port import Clock

FULL = 10_000
"""Basis points."""
PERIOD = 50_000_000
"""Nanoseconds of device time that a sample covers at least: how often the driver asks."""


class PowerMeter:
    """Our measure of power is time at work: `busy` says how much device time all engines have worked."""

    def __init__(self, clock: Clock, busy: Callable[[], int], engines: int) -> None:
        self._clock = clock
        self._busy = busy
        self._engines = engines
        self._since = (clock.now(), busy())
        self._utilisation = 0
        self._number = 0

    def sample(self) -> int:
        """The word as the driver reads it; a new sample if the last is old enough."""
        now, busy = self._clock.now(), self._busy()
        elapsed = now - self._since[0]
        if elapsed >= PERIOD:
            share = FULL * (busy - self._since[1]) // (elapsed * self._engines)
            self._utilisation = min(FULL, share)
            self._number = (self._number + 1) & 0xFFFF
            self._since = (now, busy)
        return self._number << 16 | self._utilisation
