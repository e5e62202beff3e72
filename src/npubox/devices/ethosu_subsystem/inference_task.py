# SPDX-License-Identifier: Apache-2.0
"""The firmware's inference task: one for each NPU, all fed from one FIFO."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from npubox.devices.ethosu_subsystem.configuration import Range
from npubox.devices.ethosu_subsystem.faults import Failure, PoweredOff
from npubox.devices.ethosu_subsystem.hardware import Hardware
from npubox.devices.ethosu_subsystem.interpreter import Interpreter
from npubox.devices.ethosu_subsystem.messages import find_network
from npubox.hw.ethosu.core_interface import BUFFER_MAX, CoreStatus, InferenceReq, InferenceRsp

log = logging.getLogger(__name__)

INTERRUPT_PACE = 0.1  # seconds of the host, in case a process for operators was just starting


class InferenceTask:
    """Takes inferences until the schedule stops; each answer goes to `finished`, on the task's thread."""

    def __init__(self, npu: int, hardware: Hardware, finished: Callable[[InferenceRsp], None]) -> None:
        self._npu = npu
        self._hardware = hardware
        self._finished = finished
        configuration = hardware.configuration
        self._interpreter = Interpreter(
            hardware.memory,
            hardware.drivers[npu],
            configuration.arena_of(npu),
            configuration.fast_memory_of(npu),
        )
        name = f"npubox-{configuration.name}-inference{npu}"
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def end(self) -> None:
        """Wait until nothing runs any more of a task whose schedule and NPU are stopped. An operator of the
        Cortex-M is not waited for."""
        while self.thread.is_alive():
            self._interpreter.interrupt()
            self.thread.join(INTERRUPT_PACE)

    def _run(self) -> None:
        schedule = self._hardware.schedule
        try:
            while (request := schedule.take(self._npu)) is not None:
                try:
                    self._serve(request)
                finally:
                    schedule.release(self._npu)
        except PoweredOff:
            pass
        finally:
            self._interpreter.close()

    def _serve(self, request: InferenceReq) -> None:
        board = self._hardware.board
        board.inference_began(self._npu)
        reason = None
        try:
            answer = self._infer(request)
        except PoweredOff:
            raise
        except Failure as failure:
            reason = str(failure)
        except Exception as error:
            log.exception("the firmware of %s failed", self._hardware.configuration.name)
            reason = f"the firmware itself failed: {error!r}"
        self._hardware.drivers[self._npu].check_powered()
        if reason is not None:
            answer = InferenceRsp(user_arg=request.user_arg, status=CoreStatus.ERROR)
        board.inference_ended(self._npu, request, answer, reason)
        self._finished(answer)

    def _infer(self, request: InferenceReq) -> InferenceRsp:
        if request.ifm_count > BUFFER_MAX or request.ofm_count > BUFFER_MAX:
            raise Failure(
                f"a request counts {request.ifm_count} inputs and {request.ofm_count} outputs: a message"
                f" holds {BUFFER_MAX}"
            )
        written, counters = self._interpreter.run(
            find_network(request.network, self._hardware.networks),
            [Range(buffer.ptr, buffer.size) for buffer in request.ifm[: request.ifm_count]],
            [Range(buffer.ptr, buffer.size) for buffer in request.ofm[: request.ofm_count]],
            list(request.pmu_event_config),
            bool(request.pmu_cycle_counter_enable),
        )
        answer = InferenceRsp(user_arg=request.user_arg, status=CoreStatus.OK, ofm_count=len(written))
        answer.ofm_size[: len(written)] = written
        answer.pmu_event_config[:] = counters.events
        answer.pmu_event_count[:] = counters.counts
        answer.pmu_cycle_counter_enable = request.pmu_cycle_counter_enable
        answer.pmu_cycle_counter_count = counters.cycles
        return answer
