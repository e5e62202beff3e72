# SPDX-License-Identifier: Apache-2.0
"""A second thread for the NPU's convolutions, where the host has more than one CPU.

It spins while a run that is worth it goes on, and sleeps otherwise.
"""

from __future__ import annotations

import os
import threading

from npubox.devices.ethosu_npu.kernels.program import State
from npubox.devices.ethosu_npu.memory import Shram
from npubox.devices.ethosu_npu.program import Int64Array, Program

THREADS = "NPUBOX_THREADS"  # 1: none but the NPU's own


def wanted() -> bool:
    """Whether the host has a CPU to spare and nobody asked for a single thread."""
    return len(os.sched_getaffinity(0)) > 1 and os.environ.get(THREADS, "") != "1"


class Assistant:
    """Helps one run at a time; `start` and `stop` are for whichever thread carries it."""

    def __init__(self, shram: Shram, state: Int64Array) -> None:
        self._shram = shram
        self._state = state
        self._changed = threading.Condition()
        self._program: Program | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self, program: Program) -> None:
        """Begin to help with `program`, soon."""
        with self._changed:
            while self._program is not None:  # of a run whose thread was interrupted in `stop`
                self._changed.wait()
            self._state[State.LEAVE] = 0
            self._program = program
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="npubox-assistant", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def stop(self) -> None:
        """Return once nobody helps any more."""
        self._state[State.LEAVE] = 1
        with self._changed:
            while self._program is not None:
                self._changed.wait()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._program is None and not self._closed:
                    self._changed.wait()
                program = self._program
                if program is None:
                    return
            program.assist(self._shram, self._state)
            with self._changed:
                self._program = None
                self._changed.notify_all()
