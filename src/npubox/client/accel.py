# SPDX-License-Identifier: Apache-2.0
"""The common face over mainline's `ethosu` accel driver."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from pathlib import Path

from npubox.client.backend import Array
from npubox.client.buffers import Buffer, BufferObject
from npubox.client.ethosu_accel import FOREVER
from npubox.client.hardware import Hardware
from npubox.client.layers import dump_layers
from npubox.client.memory import Memory
from npubox.client.program import Program
from npubox.client.run import Run
from npubox.errors import InputError, NpuboxError
from npubox.formats.network import Network as Graph


class AccelBackend(Hardware):
    """A `Backend`."""

    def load(self, graph: Graph) -> AccelNetwork:
        return AccelNetwork(self, graph)

    def buffer(self, size: int) -> Buffer:
        return Buffer(self, size)

    def dump_layers(self, directory: Path) -> AbstractContextManager[None]:
        return dump_layers(self, directory)


class AccelNetwork(Program):
    """A `LoadedNetwork`."""

    @property
    def stateful(self) -> bool:
        return bool(self.graph.variables)

    def start(self, values: list[Array], arena: Buffer | None) -> Run:
        """In an arena of its own, or in `arena`. Raises InputError for one that is too small or in use."""
        if arena is not None:
            return self._run_in(arena.object, values)
        memory = self.take_memory()

        def release(ended: bool) -> None:
            if ended:
                self.give_back(memory)
            else:
                memory.drop()

        return Run(self, memory, values, release)

    def new_state(self) -> SessionState:
        return SessionState(self)

    def _run_in(self, arena: BufferObject, values: list[Array]) -> Run:
        if arena.size < self.graph.arena_size:
            raise InputError(f"the arena has {arena.size} bytes: this network needs {self.graph.arena_size}")
        arena.claim()
        try:
            arena.wait(FOREVER)  # jobs of an inference that was closed early
            arena.uses.hold()
            memory = self.memory_in(arena)
        except BaseException:
            arena.unclaim()
            raise

        def release(_: bool) -> None:
            arena.unclaim()
            memory.drop()

        return Run(self, memory, values, release)


class SessionState:
    """What a session owns: its memory, in which state lies, and its last run."""

    def __init__(self, program: Program) -> None:
        program.uses.hold()
        self._program = program
        self._lock = threading.Lock()
        self._last: Run | None = None
        try:
            self._memory: Memory = program.take_memory()
            program.reset_state(self._memory)
        except BaseException:
            program.uses.drop()
            raise

    def submit(self, values: list[Array]) -> Run:
        with self._lock:
            if self._last is not None:
                self._last.advance(FOREVER)
                if self._last.error is not None:
                    raise NpuboxError(
                        "an earlier inference of this session failed and its state is lost: reset() it"
                    )
            self._memory.hold()
            run = Run(self._program, self._memory, values, lambda _: self._memory.drop())
            run.uses.hold()
            self._replace_last(run)
            return run

    def reset(self) -> None:
        with self._lock:
            if self._last is not None:
                self._last.advance(FOREVER)
            self._replace_last(None)
            self._program.reset_state(self._memory)

    def _replace_last(self, run: Run | None) -> None:
        if self._last is not None:
            self._last.uses.drop()
        self._last = run

    def free(self) -> None:
        with self._lock:
            self._replace_last(None)
            self._memory.drop()
        self._program.uses.drop()
