# SPDX-License-Identifier: Apache-2.0
"""What the driver keeps of each NeuronCore: whether it is initialised (facts, neuron.md §10.2, §10.3)."""

from __future__ import annotations

import time

from npubox.core.pending import Pending
from npubox.drivers.misc.neuron.work import Once
from npubox.uapi.neuron import CoreState

INITIALISATION_PATIENCE = 5_000_000_000  # ns: ten looks, half a second apart


class Core:
    """Guarded by the driver's lock."""

    def __init__(self) -> None:
        self.state = CoreState.INVALID
        self.models_started = 0
        self._changed = Once()

    def begin(self) -> Pending | None:
        """Somebody wants to initialise the core: it is STARTED for the first, for others wait until it is
        COMPLETED, five seconds at most."""
        if self.state is CoreState.INVALID:
            self.state = CoreState.STARTED
            return None
        if self.state is CoreState.COMPLETED:
            return None
        return Pending([self._changed], time.monotonic_ns() + INITIALISATION_PATIENCE, timeout_errno=0)

    def complete(self) -> None:
        """The core is initialised; it does nothing to one that nobody began with."""
        if self.state is CoreState.STARTED:
            self.state = CoreState.COMPLETED
            self._tell()

    def invalidate(self) -> None:
        """The core was reset."""
        self.state = CoreState.INVALID
        self.models_started = 0
        self._tell()

    def _tell(self) -> None:
        self._changed.happen()
        self._changed = Once()
