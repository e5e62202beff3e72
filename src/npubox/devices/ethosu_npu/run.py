# SPDX-License-Identifier: Apache-2.0
"""One run of a command stream, and the executor that carries it on, on whichever thread.

How far a run is stands in the run and in the cells that compiled code writes, so that another thread can go
on where one stopped, even if an exception of a signal handler stopped that one between two lines.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Protocol

from npubox.bus.virtual import AddressSpace, DmaFault
from npubox.devices.ethosu_npu.assistant import Assistant
from npubox.devices.ethosu_npu.assistant import wanted as assistance_wanted
from npubox.devices.ethosu_npu.configuration import Configuration
from npubox.devices.ethosu_npu.cycles import Cost
from npubox.devices.ethosu_npu.faults import Fault, Refused
from npubox.devices.ethosu_npu.kernels.program import State
from npubox.devices.ethosu_npu.memory import Memory, Regions, Shram
from npubox.devices.ethosu_npu.plan import Plan, build_plan
from npubox.devices.ethosu_npu.program import new_state
from npubox.devices.ethosu_npu.tap import Tap, read_back

KEPT_PLANS = 64
LONGEST_OPERATION = 10**9  # ns of device time; a longer one is a hang to whoever waits for it
SLICE = 10**6  # ns of device time between looks at resets and the clock, roughly
WORTH_ASSISTING = 200_000  # cycles of a stream in operations that two threads can share
NANOSECONDS = 10**9


class Injection(Enum):
    """Faults that the control channel can make happen at the next run's first operation."""

    HANG = "hang"
    BUS_ERROR = "bus error"


class Aborted(Exception):  # noqa: N818 - a reset, not an error
    """The NPU was reset while it ran."""


class Run:
    """A run that CMD.run asked for: `size` bytes of stream at `queue`, the eight region `bases`.

    `start` is device time in ns. `lendable`: a thread that a waiter lends may carry it on. `finished`: its
    report stands; `over`: it is told, and only the interrupt is to come.
    """

    def __init__(
        self, start: int, queue: int, size: int, bases: tuple[int, ...], injection: Injection | None
    ) -> None:
        self.start = start
        self.queue = queue
        self.size = size
        self.bases = bases
        self.injection = injection
        self.lendable = True
        self.plan: Plan | None = None
        self.regions: Regions | None = None
        self.index = 0
        self.fault: Fault | None = None
        self.finished = False
        self.over = False

    @property
    def cycles(self) -> int:
        """Of what has been executed."""
        return self.plan.cycles[self.index] if self.plan is not None else 0

    @property
    def operations(self) -> int:
        """How many have been executed."""
        return self.plan.operations[self.index] if self.plan is not None else 0

    @property
    def irq_mask(self) -> int:
        """Of its OP_STOP."""
        assert self.plan is not None
        return self.plan.entries[-1].irq_mask

    def position(self) -> tuple[str | None, int | None]:
        """Name and byte offset of the command the run is at."""
        if self.plan is None:
            return None, None
        if self.index < len(self.plan.entries):
            command = self.plan.entries[self.index].command
            return command.name, command.offset
        refusal = self.plan.refusal
        return (refusal.name, refusal.offset) if refusal is not None else (None, None)


class Progress(Protocol):
    """Who hears how a run gets on: the NPU's registers."""

    def spent(self, cost: Callable[[], Cost], moment: int) -> None:
        """Operations that `cost()` were executed, until `moment` of device time."""

    def raise_irq(self, mask: int) -> None:
        """OP_IRQ was executed."""

    def hang(self) -> None:
        """Make no progress until the run is aborted."""


class Executor:
    """Executes one run at a time; keeps the plans of streams that it has seen, and the lookup tables."""

    def __init__(
        self,
        configuration: Configuration,
        dma: AddressSpace,
        frequency: int,
        progress: Progress,
        assisted: bool = True,
    ) -> None:
        self.tap: Tap | None = None
        self._configuration = configuration
        self._memory = Memory(dma)
        self._frequency = frequency
        self._slice = SLICE * frequency // NANOSECONDS
        self._progress = progress
        self._shram = Shram(configuration.shram_kib // configuration.cores)
        self._plans: OrderedDict[bytes, Plan] = OrderedDict()
        self._cells = new_state()
        self._offsets: tuple[int, ...] = (0,)
        assisted = assisted and assistance_wanted()
        self._assistant = Assistant(self._shram, self._cells) if assisted else None

    @property
    def offset(self) -> int:
        """Byte offset of the command under way in its stream."""
        return self._offsets[int(self._cells[State.STEP])]

    def abort(self) -> None:
        """Have the run end before its next operation."""
        self._cells[State.STOP] = 1

    def reset(self) -> None:
        """As after power-up; no run may be under way."""
        self._offsets = (0,)
        self._cells[State.STEP] = self._cells[State.STOP] = 0
        self._shram.clear()

    def close(self) -> None:
        if self._assistant is not None:
            self._assistant.close()

    def execute(self, run: Run, *, lent: bool = False, deadline: int | None = None) -> bool:
        """Execute what is left of `run`; False if something still is.

        On a `lent` thread that is all that takes Python (planning, operations seen for the first time, faults
        to inject) and what does not fit before `deadline` (CLOCK_MONOTONIC ns). Raises Aborted, DmaFault or
        Refused.
        """
        if run.plan is None and not self._begin(run, lent):
            return False
        assert run.plan is not None
        with self._assistance(run.plan):
            self._account(run, run.plan)
            while run.index < len(run.plan.entries):
                if self._cells[State.STOP]:
                    raise Aborted
                if lent and deadline is not None and time.monotonic_ns() >= deadline:
                    return False
                if not self._run_rows(run, run.plan):
                    if lent and run.index != run.plan.last:
                        return False
                    self._run_entry(run, run.plan)
                self._account(run, run.plan)
        if run.plan.refusal is not None:
            raise Refused(run.plan.refusal.reason)
        return True

    def _begin(self, run: Run, lent: bool) -> bool:
        """Fetch the stream and find its plan; False if it has to be made first, on a lent thread."""
        if run.size < 4:
            raise Refused(f"QSIZE is {run.size}; a stream holds at least OP_STOP")
        words = self._memory.view(run.queue, run.size).tobytes()
        plan = self._plans.get(words)
        if plan is None:
            if lent:
                return False
            plan = self._plans[words] = build_plan(words, self._configuration)
            if len(self._plans) > KEPT_PLANS:
                self._plans.popitem(last=False)
        self._plans.move_to_end(words)
        run.regions = self._memory.regions(run.bases)
        self._cells[State.STEP] = 0
        self._offsets = plan.offsets
        run.plan = plan
        return True

    @contextmanager
    def _assistance(self, plan: Plan) -> Iterator[None]:
        if self._assistant is None or plan.shared_cycles < WORTH_ASSISTING:
            yield
            return
        self._assistant.start(plan.program)
        try:
            yield
        finally:
            self._assistant.stop()

    def _run_rows(self, run: Run, plan: Plan) -> bool:
        """Execute what can be done without Python, about SLICE of device time; whether anything was."""
        if self.tap is not None or run.injection is not None:
            return False
        last = bisect_right(plan.cycles, plan.cycles[run.index] + self._slice) - 1
        if last <= run.index:
            if self._duration(plan.entries[run.index].cost.total) > LONGEST_OPERATION:
                return False
            last = run.index + 1
        assert run.regions is not None
        done = plan.program.run(run.index, last, run.regions, self._shram, self._cells)
        if done == plan.last:
            self._cells[State.STEP] = done + 1  # OP_STOP, which does nothing
        return done > run.index

    def _run_entry(self, run: Run, plan: Plan) -> None:
        """Execute one entry in Python."""
        assert run.regions is not None
        entry = plan.entries[run.index]
        if run.injection is Injection.HANG or self._duration(entry.cost.total) > LONGEST_OPERATION:
            self._progress.hang()
            raise Aborted
        if run.injection is Injection.BUS_ERROR:
            raise DmaFault(run.queue, 4, False, "injected by the control channel")
        step = entry.step
        if step is not None:
            step.run(run.regions, self._shram)
            plan.program.learn(run.index, step)
        if self.tap is not None and entry.ofm is not None:
            self.tap(entry.command, entry.ofm, read_back(run.regions, entry.ofm))
        self._cells[State.STEP] = run.index + 1
        if step is None and run.index != plan.last:
            self._account(run, plan)
            self._progress.raise_irq(entry.irq_mask)

    def _account(self, run: Run, plan: Plan) -> None:
        """Tell what has been executed since the last time, by this thread or the one before it."""
        before, run.index = run.index, int(self._cells[State.STEP])
        moment = run.start + self._duration(run.cycles)
        self._progress.spent(lambda: plan.cost(before, run.index), moment)

    def _duration(self, cycles: int) -> int:
        return cycles * NANOSECONDS // self._frequency
