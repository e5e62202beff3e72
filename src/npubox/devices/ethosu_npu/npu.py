# SPDX-License-Identifier: Apache-2.0
"""The virtual NPU: its registers, and the threads that carry out what they start.

Register behaviour: the project's facts, ethosu-npu.md §9 and ethosu-accel.md §6. Nothing here sees a
model file; results come from the bytes in device memory alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from npubox.bus.virtual import AddressSpace, DeviceClock, DmaFault, InterruptLine
from npubox.devices.ethosu_npu.alarm import Alarm
from npubox.devices.ethosu_npu.configuration import Configuration
from npubox.devices.ethosu_npu.cycles import Cost
from npubox.devices.ethosu_npu.faults import Fault, Refused, RunReport
from npubox.devices.ethosu_npu.pmu import Pmu
from npubox.devices.ethosu_npu.run import Aborted, Executor, Injection, Run
from npubox.devices.ethosu_npu.tap import Tap
from npubox.hw.ethosu.registers import (
    BASEP_COUNT,
    REGISTER_WINDOW,
    STATUS_IRQ_HISTORY_SHIFT,
    Cmd,
    Reg,
    Status,
)

log = logging.getLogger(__name__)

PROMPT = 1_000_000  # ns of host time after CMD.run; a waiter that comes later is not worth holding back for

_RUNNING, _IRQ_RAISED = int(Status.RUNNING), int(Status.IRQ_RAISED)
_IN_RESET, _END_REACHED = int(Status.RESET_IN_PROGRESS), int(Status.END_REACHED)
_RUN, _CLEAR_IRQ, _STOP_REQUEST = int(Cmd.RUN), int(Cmd.CLEAR_IRQ), int(Cmd.STOP_REQUEST)
_READ_ONLY = frozenset({Reg.ID, Reg.STATUS, Reg.QREAD, Reg.PROT, Reg.CONFIG})
_BASES = range(Reg.BASEP0, Reg.BASEP0 + 8 * BASEP_COUNT, 8)
_STORED = frozenset(range(Reg.BASEP0, Reg.BASEP0 + 8 * BASEP_COUNT, 4)) | {
    Reg.QBASE,
    Reg.QBASE_HI,
    Reg.QSIZE,
}


class RunObserver(Protocol):
    """Who hears of runs, on threads of the device's: the control channel. It must not call back."""

    def run_started(self) -> None:
        """CMD.run was taken."""

    def run_ignored(self, fault: Fault) -> None:
        """CMD.run came while the NPU was running or in reset."""

    def run_finished(self, report: RunReport) -> None:
        """A run is over; its interrupt is still to come."""


class VirtualNpu:
    """One Ethos-U55 or U65 behind a port's registers.

    It runs on a thread of its own, or on one that is lent to it (`lend`): waking another thread takes longer
    than most small networks. With `patience`, in ns of host time, its own holds back for so long when a
    waiter came promptly for the run before.
    """

    def __init__(
        self,
        configuration: Configuration,
        dma: AddressSpace,
        clock: DeviceClock,
        line: InterruptLine,
        frequency: int,
        observer: RunObserver,
        patience: int = 0,
        assisted: bool = True,
    ) -> None:
        """`assisted`: use a second CPU of the host, where it has one, for long runs."""
        self.configuration = configuration
        self._clock = clock
        self._line = line
        self._observer = observer
        self._lendable = patience > 0
        self._waiter_expected = False
        self._executor = Executor(configuration, dma, frequency, self, assisted)
        self._state = threading.RLock()
        self._changed = threading.Condition(self._state)
        self._registers: dict[int, int] = {}
        self._status = 0
        self._irq_history = 0
        self._prot = 0
        self._pmu = Pmu()
        self._injection: Injection | None = None
        self._waiting: Run | None = None
        self._requested = 0
        self._carrier: int | None = None
        self._abort = False
        self._hung = False
        self._closed = False
        self._thread: threading.Thread | None = None
        self._alarm = Alarm(patience)

    # Registers

    def read32(self, offset: int) -> int:
        with self._state:
            match offset:
                case Reg.ID:
                    return self.configuration.npu_id
                case Reg.CONFIG:
                    return self.configuration.config
                case Reg.STATUS:
                    return self._status | self._irq_history << STATUS_IRQ_HISTORY_SHIFT
                case Reg.PROT:
                    return self._prot
                case Reg.QREAD:
                    return self._executor.offset
                case Reg.CMD | Reg.RESET:
                    return 0
            value = self._pmu.read(offset)
            return self._registers.get(offset, 0) if value is None else value

    def write32(self, offset: int, value: int) -> None:
        if offset % 4 or not 0 <= offset < REGISTER_WINDOW:
            log.warning("write of %#x to %#x, where the NPU has no register, is ignored", value, offset)
            return
        with self._state:
            if offset in _STORED:
                self._registers[offset] = value
            elif offset == Reg.CMD:
                self._command(value)
            elif offset == Reg.RESET:
                self._reset(value)
            elif offset in _READ_ONLY:
                log.warning("write of %#x to read-only register %s is ignored", value, Reg(offset).name)
            elif not self._pmu.write(offset, value):
                self._registers[offset] = value

    def _command(self, value: int) -> None:
        if value & _CLEAR_IRQ:
            self._status &= ~_IRQ_RAISED
        self._irq_history &= ~(value >> 16)
        if value & _STOP_REQUEST:
            log.warning("CMD.stop_request is not modelled and is ignored")
        if value & _RUN:
            self._request_run()

    def _request_run(self) -> None:
        if self._status & (_RUNNING | _IN_RESET):
            reason = "CMD.run came while the NPU was busy and was ignored: this job never ran"
            self._observer.run_ignored(Fault(reason, Status(0)))
            return
        self._status = (self._status & _IRQ_RAISED) | _RUNNING
        self._waiting = self._new_run()
        self._requested = time.monotonic_ns()
        self._observer.run_started()
        self._clock.begin_work()
        if self._thread is None:
            name = f"npubox-{self.configuration.name}"
            self._thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._thread.start()
        if self._carrier is not None:
            return  # whoever carries the run that just ended looks after this one
        if self._waiter_expected:
            self._alarm.ring_later()
        else:
            self._alarm.ring()

    def _new_run(self) -> Run:
        """The run that the registers describe now."""
        injection, self._injection = self._injection, None
        bases = tuple(map(self._wide, _BASES))
        size = self._registers.get(Reg.QSIZE, 0)
        return Run(self._clock.now(), self._wide(Reg.QBASE), size, bases, injection)

    def _reset(self, value: int) -> None:
        self._prot = value & 3
        if self._status & _RUNNING:
            self._status |= _IN_RESET
            self._abandon()
        else:
            self._clear()

    def _abandon(self) -> None:
        """Have the run in progress end at its next operation; a hang ends now."""
        self._abort = True
        self._executor.abort()
        if self._hung:
            self._hung = False
            self._clock.end_hang()
        self._changed.notify_all()
        self._alarm.ring()

    def _clear(self) -> None:
        self._registers.clear()
        self._executor.reset()
        self._status = 0
        self._irq_history = 0
        self._pmu = Pmu()

    def _wide(self, register: int) -> int:
        low = self._registers.get(register, 0)
        return (self._registers.get(register + 4, 0) & 0xFF) << 32 | low

    # Control channel

    def inject(self, injection: Injection) -> None:
        """Make the next run fail: a test of whoever drives the NPU."""
        with self._state:
            self._injection = injection

    def watch(self, tap: Tap | None) -> None:
        """Call `tap` after each operation that has an OFM, on the NPU's own thread."""
        self._executor.tap = tap

    def close(self) -> None:
        """Power off: a run in progress is abandoned, and the NPU's thread ended."""
        with self._state:
            self._closed = True
            self._abandon()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        with self._state:
            while self._carrier not in (None, threading.get_ident()):
                self._changed.wait()
            self._alarm.close()
        self._executor.close()

    # Execution

    def lend(self, deadline: int | None) -> bool:
        """`Port.lend`: carry the run that nobody carries yet, as far as it needs no Python."""
        if not self._lendable:
            return False
        run = self._take(lent=True)
        if run is not None:
            self._carry(run, lent=True, deadline=deadline)
        return run is not None

    def _work(self) -> None:
        while True:
            while (run := self._take()) is not None:
                self._carry(run)
            if self._closed:
                return
            self._alarm.wait()

    def _take(self, lent: bool = False) -> Run | None:
        with self._state:
            run = self._waiting
            if lent:
                self._waiter_expected = time.monotonic_ns() - self._requested < PROMPT
            if run is None or self._carrier is not None or (lent and not run.lendable):
                return None
            if not lent and run.lendable:
                self._waiter_expected = False
            self._waiting, self._carrier = None, threading.get_ident()
            return run

    def _carry(self, run: Run, *, lent: bool = False, deadline: int | None = None) -> None:
        """Execute and finish `run`; a lent thread may leave a part of it, which is then the own thread's."""
        try:
            if run.finished or self._execute(run, lent, deadline):
                self._finish(run)
        finally:  # also where a signal handler raises, on a lent thread
            with self._state:
                self._carrier = None
                if not run.over:
                    run.lendable = False
                    self._waiting = run
                if lent and self._waiting is not None:
                    self._alarm.ring()
                self._changed.notify_all()
            if run.over:
                self._clock.end_work()

    def _execute(self, run: Run, lent: bool, deadline: int | None) -> bool:
        """Whether `run` has come to its end, good or bad."""
        try:
            if not self._executor.execute(run, lent=lent, deadline=deadline):
                return False
        except Aborted:
            run.fault = Fault("the NPU was reset while it ran", Status(0), *run.position())
        except DmaFault as error:
            run.fault = Fault(str(error), Status.BUS_ERROR, *run.position(), error.address)
        except Refused as error:
            run.fault = Fault(str(error), error.status, *run.position())
        except Exception as error:
            if lent:
                raise  # a signal handler's, or the own thread will meet it again
            log.exception("the virtual NPU failed")
            reason = f"the virtual NPU itself failed: {error!r}"
            run.fault = Fault(reason, Status.PARSE_ERROR, *run.position())
        run.finished = True
        return True

    def _finish(self, run: Run) -> None:
        """Tell that `run` has come to its end: control channel, registers, interrupt."""
        fault = run.fault
        self._observer.run_finished(
            RunReport(run.cycles, run.start, self._clock.now(), run.operations, fault)
        )
        with self._state:
            aborted = self._abort
            if aborted:
                self._abort = self._closed
                self._clear()
            elif fault is not None:
                self._status = _IRQ_RAISED | fault.status
            else:
                self._status = _IRQ_RAISED | _END_REACHED
                self._irq_history |= run.irq_mask
            run.over = True
        if not aborted:
            self._line.fire()

    # What the executor tells

    def spent(self, cost: Callable[[], Cost], moment: int) -> None:
        """See `run.Progress`."""
        with self._state:
            self._pmu.count(cost)
        self._clock.advance_to(moment)

    def raise_irq(self, mask: int) -> None:
        with self._state:
            self._status |= _IRQ_RAISED
            self._irq_history |= mask
        self._line.fire()

    def hang(self) -> None:
        """Until a reset; meanwhile device time flows for whoever waits."""
        with self._state:
            self._hung = True
            self._clock.begin_hang()
            while not self._abort:
                self._changed.wait()
