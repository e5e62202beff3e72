# SPDX-License-Identifier: Apache-2.0
"""The firmware of one boot: its message task. Inferences are in `inference_task`.

Behaviour: that of Arm's message handler of 2022 (facts, ethosu-linux.md §2.6).
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from npubox.bus.virtual import DmaFault
from npubox.devices.ethosu_subsystem.answers import Answers
from npubox.devices.ethosu_subsystem.faults import Failure, SubsystemInjection
from npubox.devices.ethosu_subsystem.hardware import Hardware
from npubox.devices.ethosu_subsystem.inference_task import InferenceTask
from npubox.devices.ethosu_subsystem.messages import (
    capabilities,
    find_network,
    model_at,
    network_info,
    network_layout,
)
from npubox.devices.ethosu_subsystem.program import Program
from npubox.devices.ethosu_subsystem.ring import InQueue, OutQueue
from npubox.hw.ethosu.core_interface import (
    MAGIC,
    PAYLOADS,
    VERSION,
    CancelInferenceReq,
    CancelInferenceRsp,
    CapabilitiesReq,
    CoreStatus,
    Empty,
    ErrorMessage,
    ErrorType,
    InferenceReq,
    InferenceRsp,
    Message,
    MessageType,
    NetworkInfoReq,
    NetworkInfoRsp,
    NetworkLayoutRsp,
    VersionRsp,
)

log = logging.getLogger(__name__)


class Firmware:
    """Boots when made, on threads of its own."""

    def __init__(self, hardware: Hardware, before: Firmware | None) -> None:
        """`before` is the firmware of the boot before, which has been powered off."""
        self._hardware = hardware
        self._before = before
        self._changed = threading.Condition()
        self._events = 0
        self._working = True
        self._alive = True
        self._hung = False
        self._moment = 0
        self._finished: deque[InferenceRsp] = deque()
        self._tasks: list[InferenceTask] = []
        self._queues: tuple[InQueue, OutQueue] | None = None
        hardware.clock.begin_work()
        self._thread = threading.Thread(
            target=self._run, name=f"npubox-{hardware.configuration.name}", daemon=True
        )
        self._thread.start()

    def wake(self) -> None:
        """There is something to do: the host rang, or an inference has ended."""
        with self._changed:
            self._events += 1
            if self._alive and not self._working and not self._hung:
                self._working = True
                self._hardware.clock.begin_work()
                self._changed.notify_all()

    def power_off(self) -> None:
        """The reset line is asserted: everything stops where it is. Does not wait for that."""
        with self._changed:
            self._alive = False
            self._changed.notify_all()
        self._hardware.schedule.stop()
        for driver in self._hardware.drivers:
            driver.abandon()

    def join(self) -> None:
        """Wait until nothing of a powered-off boot runs any more."""
        self._thread.join()
        for task in self._tasks:
            task.end()

    @property
    def quiet(self) -> bool:
        """Whether there is nothing to do and the host has taken every answer, or it does nothing any more.
        Takes no lock."""
        queues = self._queues
        if self._hung:
            return True
        if queues is None or self._working:
            return False
        return not queues[0].available and queues[1].taken

    # The message task

    def _run(self) -> None:
        try:
            self._serve_until_powered_off()
        except Exception:
            log.exception("the firmware of %s crashed", self._hardware.configuration.name)
            self._hung = True  # to the host it is silent, and time passes until it resets
        finally:
            with self._changed:
                if self._working:
                    self._working = False
                    self._hardware.clock.end_work()

    def _serve_until_powered_off(self) -> None:
        if self._before is not None:
            self._before.join()
            self._before = None
        inbox, answers = self._boot()
        while True:
            seen = self._events
            self._serve(inbox, answers)
            with self._changed:
                if self._events == seen or self._hung:
                    self._working = False
                    self._hardware.clock.end_work()
                    while self._alive and not self._working:
                        self._changed.wait()
                if not self._alive:
                    return

    def _boot(self) -> tuple[InQueue, Answers]:
        hardware, configuration = self._hardware, self._hardware.configuration
        for driver in hardware.drivers:
            driver.start()
        outbox = OutQueue(hardware.memory, configuration.out_queue, configuration.short_header)
        inbox = InQueue(hardware.memory, configuration.in_queue, configuration.short_header)
        with self._changed:
            if self._alive:
                hardware.schedule.start()
                self._tasks = [
                    InferenceTask(npu, hardware, self._inference_finished)
                    for npu in range(configuration.npus)
                ]
        outbox.start()
        inbox.start()
        self._queues = inbox, outbox
        return inbox, Answers(outbox, hardware, self.wake)

    def _inference_finished(self, answer: InferenceRsp) -> None:
        self._finished.append(answer)
        self.wake()

    def _serve(self, inbox: InQueue, answers: Answers) -> None:
        """Until there is nothing left: answers of inferences, then messages. What lies in the queue at once
        has come at once, however long reading it takes the host that this runs on."""
        self._hardware.board.take_doorbell()
        while self._alive:
            answers.send_overdue()
            while self._finished:
                answers.send(self._finished.popleft())
            if inbox.damaged:
                self._refuse(inbox, answers, ErrorType.INVALID_SIZE, "A queue index points outside")
            if not inbox.available:
                return
            self._moment, end = self._hardware.clock.now(), inbox.end
            while inbox.available and inbox.position != end:
                if self._hardware.injections.take(SubsystemInjection.HANG):
                    self._hung = True
                    return
                self._receive(inbox, answers)

    def _receive(self, inbox: InQueue, answers: Answers) -> None:
        """One message. The payload's size is that of its type: `length` is not looked at."""
        data = inbox.read(ctypes.sizeof(Message))
        if data is None:
            self._refuse(inbox, answers, ErrorType.INVALID_SIZE, "Failed to read a complete header")
            return
        header = Message.from_buffer_copy(data)
        if header.magic != MAGIC:
            self._refuse(inbox, answers, ErrorType.INVALID_MAGIC, "Invalid magic")
            return
        handler = _HANDLERS.get(header.type)
        if handler is None and header.type != MessageType.ERR:
            self._refuse(
                inbox, answers, ErrorType.UNSUPPORTED_TYPE, f"Unsupported message type {header.type}"
            )
            return
        kind = MessageType(header.type)
        payload = inbox.read(ctypes.sizeof(PAYLOADS[kind]))
        if payload is None:
            self._refuse(inbox, answers, ErrorType.INVALID_PAYLOAD, f"{kind.name}. Failed to read payload")
        elif handler is None:
            error = ErrorMessage.from_buffer_copy(payload)
            log.warning("%s: the host reports: %r", self._hardware.configuration.name, error.msg)
            inbox.drop()
        else:
            handler(self, PAYLOADS[kind].from_buffer_copy(payload), answers)

    def _refuse(self, inbox: InQueue, answers: Answers, kind: ErrorType, text: str) -> None:
        inbox.drop()
        answers.send(ErrorMessage(type=kind, msg=text.encode()))

    # Messages

    def _ping(self, request: Empty, answers: Answers) -> None:
        answers.send(Empty())

    def _pong(self, request: Empty, answers: Answers) -> None:
        """The host is alive."""

    def _version(self, request: Empty, answers: Answers) -> None:
        major, minor, patch = VERSION
        answers.send(VersionRsp(major, minor, patch, 0))

    def _capabilities(self, request: CapabilitiesReq, answers: Answers) -> None:
        answers.send(capabilities(request.user_arg, self._hardware.drivers[0]))

    def _inference(self, request: InferenceReq, answers: Answers) -> None:
        if not self._hardware.schedule.push(request, self._moment):
            answers.send(InferenceRsp(user_arg=request.user_arg, status=CoreStatus.REJECTED))

    def _cancel(self, request: CancelInferenceReq, answers: Answers) -> None:
        waited = self._hardware.schedule.remove(request.inference_handle)
        if waited:
            answers.send(InferenceRsp(user_arg=request.inference_handle, status=CoreStatus.ABORTED))
        status = CoreStatus.OK if waited else CoreStatus.ERROR
        answers.send(CancelInferenceRsp(user_arg=request.user_arg, status=status))

    def _network_info(self, request: NetworkInfoReq, answers: Answers) -> None:
        self._describe(request, answers, network_info, NetworkInfoRsp)

    def _network_layout(self, request: NetworkInfoReq, answers: Answers) -> None:
        self._describe(request, answers, network_layout, NetworkLayoutRsp)

    def _describe(
        self,
        request: NetworkInfoReq,
        answers: Answers,
        describe: Callable[[int, Program], Any],
        answer: type[Any],
    ) -> None:
        try:
            place = find_network(request.network, self._hardware.networks)
            answers.send(describe(request.user_arg, model_at(self._hardware.memory, place)))
        except (Failure, DmaFault) as failure:
            log.warning("%s: no network info: %s", self._hardware.configuration.name, failure)
            answers.send(answer(user_arg=request.user_arg, status=CoreStatus.ERROR))


_HANDLERS: dict[int, Callable[[Firmware, Any, Answers], None]] = {
    MessageType.PING: Firmware._ping,
    MessageType.PONG: Firmware._pong,
    MessageType.VERSION_REQ: Firmware._version,
    MessageType.CAPABILITIES_REQ: Firmware._capabilities,
    MessageType.INFERENCE_REQ: Firmware._inference,
    MessageType.CANCEL_INFERENCE_REQ: Firmware._cancel,
    MessageType.NETWORK_INFO_REQ: Firmware._network_info,
    MessageType.NETWORK_LAYOUT_REQ: Firmware._network_layout,
}
