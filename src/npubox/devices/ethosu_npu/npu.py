# SPDX-License-Identifier: Apache-2.0
"""The virtual NPU: its registers, and the thread that fetches and executes command streams.

Register behaviour: the project's facts, ethosu-npu.md §9 and ethosu-accel.md §6. Nothing here sees a
model file; results come from the bytes in device memory alone.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_right
from collections import OrderedDict
from enum import Enum
from typing import Protocol

from npubox.bus.virtual import AddressSpace, DeviceClock, DmaFault, InterruptLine
from npubox.devices.ethosu_npu.assistant import Assistant
from npubox.devices.ethosu_npu.assistant import wanted as assistance_wanted
from npubox.devices.ethosu_npu.configuration import Configuration
from npubox.devices.ethosu_npu.faults import Fault, Refused, RunReport
from npubox.devices.ethosu_npu.kernels.program import State
from npubox.devices.ethosu_npu.memory import Memory, Regions, Shram
from npubox.devices.ethosu_npu.plan import Plan, build_plan
from npubox.devices.ethosu_npu.pmu import Pmu
from npubox.devices.ethosu_npu.program import new_state
from npubox.devices.ethosu_npu.tap import Tap, read_back
from npubox.hw.ethosu.registers import (
    BASEP_COUNT,
    REGISTER_WINDOW,
    STATUS_IRQ_HISTORY_SHIFT,
    Cmd,
    Reg,
    Status,
)

log = logging.getLogger(__name__)

KEPT_PLANS = 64
LONGEST_OPERATION = 10**9  # ns of device time; a longer one is a hang to whoever waits for it
SLICE = 10**6  # ns of device time between looks at resets and the clock, roughly
WORTH_ASSISTING = 200_000  # cycles of a stream
NANOSECONDS = 10**9


class Injection(Enum):
    """Faults that the control channel can make happen at the next run's first operation."""

    HANG = "hang"
    BUS_ERROR = "bus error"


class RunObserver(Protocol):
    """Who hears of runs, on threads of the device's: the control channel. It must not call back."""

    def run_started(self) -> None:
        """CMD.run was taken."""

    def run_ignored(self, fault: Fault) -> None:
        """CMD.run came while the NPU was running or in reset."""

    def run_finished(self, report: RunReport) -> None:
        """A run is over; its interrupt is still to come."""


class _Aborted(Exception):  # noqa: N818 - a reset, not an error
    """The NPU was reset while it ran."""


class VirtualNpu:
    """One Ethos-U55 or U65 behind a port's registers. Runs jobs on a thread of its own."""

    def __init__(
        self,
        configuration: Configuration,
        dma: AddressSpace,
        clock: DeviceClock,
        line: InterruptLine,
        frequency: int,
        observer: RunObserver,
    ) -> None:
        self.configuration = configuration
        self.tap: Tap | None = None
        self._memory = Memory(dma)
        self._clock = clock
        self._line = line
        self._frequency = frequency
        self._observer = observer
        self._state = threading.Condition()
        self._registers: dict[int, int] = {}
        self._status = Status(0)
        self._irq_history = 0
        self._prot = 0
        self._pmu = Pmu()
        self._shram = Shram(configuration.shram_kib // configuration.cores)
        self._plans: OrderedDict[bytes, Plan] = OrderedDict()
        self._cells = new_state()
        self._offsets: tuple[int, ...] = (0,)
        self._assistant = Assistant(self._shram, self._cells) if assistance_wanted() else None
        self._injection: Injection | None = None
        self._requested = False
        self._abort = False
        self._hung = False
        self._closed = False
        self._thread: threading.Thread | None = None

    # Registers

    def read32(self, offset: int) -> int:
        with self._state:
            match offset:
                case Reg.ID:
                    return self.configuration.npu_id
                case Reg.CONFIG:
                    return self.configuration.config
                case Reg.STATUS:
                    return int(self._status) | self._irq_history << STATUS_IRQ_HISTORY_SHIFT
                case Reg.PROT:
                    return self._prot
                case Reg.QREAD:
                    return self._offsets[int(self._cells[State.STEP])]
                case Reg.CMD | Reg.RESET:
                    return 0
            value = self._pmu.read(offset)
            return self._registers.get(offset, 0) if value is None else value

    def write32(self, offset: int, value: int) -> None:
        if offset % 4 or not 0 <= offset < REGISTER_WINDOW:
            log.warning("write of %#x to %#x, where the NPU has no register, is ignored", value, offset)
            return
        with self._state:
            match offset:
                case Reg.CMD:
                    self._command(value)
                case Reg.RESET:
                    self._reset(value)
                case Reg.ID | Reg.STATUS | Reg.QREAD | Reg.PROT | Reg.CONFIG:
                    log.warning("write of %#x to read-only register %s is ignored", value, Reg(offset).name)
                case _:
                    if not self._pmu.write(offset, value):
                        self._registers[offset] = value

    def _command(self, value: int) -> None:
        if value & Cmd.CLEAR_IRQ:
            self._status &= ~Status.IRQ_RAISED
        self._irq_history &= ~(value >> 16)
        if value & Cmd.STOP_REQUEST:
            log.warning("CMD.stop_request is not modelled and is ignored")
        if value & Cmd.RUN:
            self._request_run()

    def _request_run(self) -> None:
        if self._status & (Status.RUNNING | Status.RESET_IN_PROGRESS):
            reason = "CMD.run came while the NPU was busy and was ignored: this job never ran"
            self._observer.run_ignored(Fault(reason, Status(0)))
            return
        self._status = (self._status & Status.IRQ_RAISED) | Status.RUNNING
        self._requested = True
        self._observer.run_started()
        self._clock.begin_work()
        if self._thread is None:
            name = f"npubox-{self.configuration.name}"
            self._thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._thread.start()
        self._state.notify_all()

    def _reset(self, value: int) -> None:
        self._prot = value & 3
        if self._status & Status.RUNNING:
            self._status |= Status.RESET_IN_PROGRESS
            self._abandon()
        else:
            self._clear()

    def _abandon(self) -> None:
        """Have the run in progress end at its next operation; a hang ends now."""
        self._abort = True
        self._cells[State.STOP] = 1
        if self._hung:
            self._hung = False
            self._clock.end_hang()
        self._state.notify_all()

    def _clear(self) -> None:
        self._registers.clear()
        self._offsets = (0,)
        self._cells[State.STEP] = self._cells[State.STOP] = 0
        self._status = Status(0)
        self._irq_history = 0
        self._pmu = Pmu()
        self._shram.clear()

    # Control channel

    def inject(self, injection: Injection) -> None:
        """Make the next run fail: a test of whoever drives the NPU."""
        with self._state:
            self._injection = injection

    def close(self) -> None:
        """Power off: a run in progress is abandoned and its thread ended."""
        with self._state:
            self._closed = True
            self._abandon()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        if self._assistant is not None:
            self._assistant.close()

    # Execution

    def _work(self) -> None:
        while True:
            with self._state:
                while not self._requested and not self._closed:
                    self._state.wait()
                if not self._requested:
                    return
                self._requested = False
            try:
                self._run()
            finally:
                self._clock.end_work()

    def _run(self) -> None:
        start = self._clock.now()
        run = _Run(start)
        fault: Fault | None = None
        try:
            stop_mask = self._execute(run)
        except _Aborted:
            fault = Fault("the NPU was reset while it ran", Status(0), *run.position())
        except DmaFault as error:
            fault = Fault(str(error), Status.BUS_ERROR, *run.position(), error.address)
        except Refused as error:
            fault = Fault(str(error), error.status, *run.position())
        except Exception as error:
            log.exception("the virtual NPU failed")
            fault = Fault(f"the virtual NPU itself failed: {error!r}", Status.PARSE_ERROR, *run.position())
        self._observer.run_finished(RunReport(run.cycles, start, self._clock.now(), run.operations, fault))
        with self._state:
            aborted = self._abort
            if aborted:
                self._abort = self._closed
                self._clear()
            elif fault is not None:
                self._status = Status.IRQ_RAISED | fault.status
            else:
                self._status = Status.IRQ_RAISED | Status.END_REACHED
                self._irq_history |= stop_mask
        if not aborted:
            self._line.fire()

    def _execute(self, run: _Run) -> int:
        """Execute the stream at QBASE; the mask of its OP_STOP."""
        with self._state:
            queue = self._wide(Reg.QBASE)
            size = self._registers.get(Reg.QSIZE, 0)
            bases = [self._wide(Reg.BASEP0 + 8 * n) for n in range(BASEP_COUNT)]
            injection, self._injection = self._injection, None
        if size < 4:
            raise Refused(f"QSIZE is {size}; a stream holds at least OP_STOP")
        plan = self._plan(self._memory.view(queue, size).tobytes())
        regions = Regions(self._memory, bases)
        run.plan = plan
        with self._state:
            self._offsets = plan.offsets
            self._cells[State.STEP] = 0
        if self._assistant is None or plan.costs[-1].total < WORTH_ASSISTING:
            return self._follow(run, plan, regions, queue, injection)
        self._assistant.start(plan.program)
        try:
            return self._follow(run, plan, regions, queue, injection)
        finally:
            self._assistant.stop()

    def _follow(
        self, run: _Run, plan: Plan, regions: Regions, queue: int, injection: Injection | None
    ) -> int:
        """Execute the entries of `plan` in order; the mask of its OP_STOP."""
        while run.index < len(plan.entries):
            if self._cells[State.STOP]:
                raise _Aborted
            if self.tap is None and injection is None and self._run_rows(run, plan, regions):
                continue
            self._cells[State.STEP] = run.index
            entry = plan.entries[run.index]
            if injection is Injection.HANG or self._duration(entry.cost.total) > LONGEST_OPERATION:
                self._hang()
            if injection is Injection.BUS_ERROR:
                raise DmaFault(queue, 4, False, "injected by the control channel")
            if entry.step is not None:
                entry.step.run(regions, self._shram)
                plan.program.learn(run.index)
            if self.tap is not None and entry.ofm is not None:
                self.tap(entry.command, entry.ofm, read_back(regions, entry.ofm))
            self._advance(run, plan, run.index + 1)
            if entry.step is None and (plan.refusal is not None or run.index < len(plan.entries)):
                self._raise_irq(entry.irq_mask)
        if plan.refusal is not None:
            raise Refused(plan.refusal.reason)
        return plan.entries[-1].irq_mask

    def _run_rows(self, run: _Run, plan: Plan, regions: Regions) -> bool:
        """Execute what can be done without Python, about SLICE of device time; whether anything was."""
        start = plan.costs[run.index].total
        end = start + SLICE * self._frequency // NANOSECONDS
        last = bisect_right(plan.costs, end, key=lambda cost: cost.total) - 1
        if last <= run.index:
            if self._duration(plan.entries[run.index].cost.total) > LONGEST_OPERATION:
                return False
            last = run.index + 1
        done = plan.program.run(run.index, last, regions, self._shram, self._cells)
        if done == run.index:
            return False
        self._advance(run, plan, done)
        return True

    def _advance(self, run: _Run, plan: Plan, index: int) -> None:
        """Entries up to `index` are done: account for their cycles, in the PMU and in device time."""
        spent = plan.costs[index] - plan.costs[run.index]
        run.index = index
        run.cycles += spent.total
        with self._state:
            self._pmu.count(spent)
        self._clock.advance_to(run.start + self._duration(run.cycles))

    def _plan(self, words: bytes) -> Plan:
        plan = self._plans.get(words)
        if plan is None:
            plan = build_plan(words, self.configuration)
            self._plans[words] = plan
            if len(self._plans) > KEPT_PLANS:
                self._plans.popitem(last=False)
        else:
            self._plans.move_to_end(words)
        return plan

    def _duration(self, cycles: int) -> int:
        return cycles * NANOSECONDS // self._frequency

    def _raise_irq(self, mask: int) -> None:
        with self._state:
            self._status |= Status.IRQ_RAISED
            self._irq_history |= mask
        self._line.fire()

    def _hang(self) -> None:
        """Make no progress until a reset; meanwhile device time flows for whoever waits."""
        with self._state:
            self._hung = True
            self._clock.begin_hang()
            while not self._abort:
                self._state.wait()
        raise _Aborted

    def _wide(self, register: int) -> int:
        low = self._registers.get(register, 0)
        return (self._registers.get(register + 4, 0) & 0xFF) << 32 | low


class _Run:
    """How far a run is: for its report."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.cycles = 0
        self.index = 0
        self.plan: Plan | None = None

    @property
    def operations(self) -> int:
        entries = self.plan.entries[: self.index] if self.plan is not None else ()
        return sum(entry.step is not None for entry in entries)

    def position(self) -> tuple[str | None, int | None]:
        """Name and byte offset of the command the run is at."""
        if self.plan is None:
            return None, None
        if self.index < len(self.plan.entries):
            command = self.plan.entries[self.index].command
            return command.name, command.offset
        refusal = self.plan.refusal
        return (refusal.name, refusal.offset) if refusal is not None else (None, None)
