# SPDX-License-Identifier: Apache-2.0
"""One run of a program through its steps: jobs of the NPU, and operators on the CPU between them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from npubox.client.backend import Array
from npubox.client.lifetime import Uses
from npubox.client.memory import Memory
from npubox.client.program import NpuStep, Program
from npubox.errors import CancelUnsupported, NpuboxError


class Run:
    """Started when made. It moves on whenever a thread waits for it or polls it; no thread of its own.

    `release` takes `memory` back as soon as the run has ended (True), or when its last use went before
    that (False: a job may still work in it).
    """

    def __init__(
        self, program: Program, memory: Memory, inputs: Sequence[Array], release: Callable[[bool], None]
    ) -> None:
        self.uses = Uses(self._abandon)
        self.error: BaseException | None = None
        self.outputs: tuple[Array, ...] = ()
        self.cycles: int | None = None
        self.device_time_ns: int | None = None
        self._program = program
        self._memory: Memory | None = memory
        self._release = release
        self._lock = threading.Lock()
        self._steps = iter(program.steps)
        self._job = -1
        self._abandoned = False
        program.uses.hold()
        with self._lock:
            self._go_on(memory, inputs)
        if self.error is not None:
            raise self.error

    def advance(self, deadline: int) -> bool:
        """Go as far as the NPU gets by `deadline` (as BO_WAIT takes it); whether that was to the end."""
        while True:
            with self._lock:
                job, memory = self._job, self._memory
                if self._abandoned:
                    raise NpuboxError("this inference was closed before it finished: submit it again")
                if memory is None:
                    return True
                memory.hold()
            try:
                if not memory.wait(deadline):
                    return False
            finally:
                memory.drop()
            with self._lock:
                if self._memory is not None and self._job == job:
                    self._end_job(self._memory)

    def cancel(self) -> None:
        """Raises CancelUnsupported, always: the mainline driver has no ioctl that takes a job back."""
        raise CancelUnsupported(
            "the ethosu accel driver cannot cancel a job: wait for it, or close the inference"
        )

    def _end_job(self, memory: Memory) -> None:
        try:
            result = self._program.hardware.result(self._job)
        except BaseException as error:
            self._finish(error)
            return
        if result.cycles is not None and result.device_time_ns is not None:
            self.cycles = (self.cycles or 0) + result.cycles
            self.device_time_ns = (self.device_time_ns or 0) + result.device_time_ns
        self._go_on(memory)

    def _go_on(self, memory: Memory, inputs: Sequence[Array] = ()) -> None:
        """Run CPU operators up to the next job and queue that, or finish where there is none."""
        try:
            for tensor, value in zip(self._program.inputs, inputs, strict=False):
                memory.write(tensor, value)
            for step in self._steps:
                if isinstance(step, NpuStep):
                    self._job = step.submit(self._program.hardware, memory)
                    return
                step.run(memory)
            self.outputs = tuple(np.array(memory.read(tensor)) for tensor in self._program.outputs)
        except BaseException as error:
            self._finish(error)
        else:
            self._finish(None)

    def _finish(self, error: BaseException | None) -> None:
        self.error = error
        self._let_go(ended=True)

    def _abandon(self) -> None:
        with self._lock:
            if self._memory is not None:
                self._abandoned = True
                self._program.hardware.forget(self._job)
                self._let_go(ended=False)

    def _let_go(self, ended: bool) -> None:
        self._memory = None
        self._release(ended)
        self._program.uses.drop()
