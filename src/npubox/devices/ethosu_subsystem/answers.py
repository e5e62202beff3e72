# SPDX-License-Identifier: Apache-2.0
"""The firmware's way to the host: answers into out_queue, and the faults ordered for them."""

from __future__ import annotations

import ctypes
import logging
from collections import deque
from collections.abc import Callable

from npubox.devices.ethosu_subsystem.faults import SubsystemInjection
from npubox.devices.ethosu_subsystem.hardware import Hardware
from npubox.devices.ethosu_subsystem.ring import OutQueue
from npubox.hw.ethosu.core_interface import (
    MAGIC,
    CancelInferenceRsp,
    CapabilitiesRsp,
    Empty,
    ErrorMessage,
    InferenceRsp,
    MessageType,
    NetworkInfoRsp,
    NetworkLayoutRsp,
    VersionRsp,
)

log = logging.getLogger(__name__)

Payload = ctypes.LittleEndianStructure
TYPES: dict[type[Payload], MessageType] = {
    ErrorMessage: MessageType.ERR,
    Empty: MessageType.PONG,
    InferenceRsp: MessageType.INFERENCE_RSP,
    VersionRsp: MessageType.VERSION_RSP,
    CapabilitiesRsp: MessageType.CAPABILITIES_RSP,
    NetworkInfoRsp: MessageType.NETWORK_INFO_RSP,
    CancelInferenceRsp: MessageType.CANCEL_INFERENCE_RSP,
    NetworkLayoutRsp: MessageType.NETWORK_LAYOUT_RSP,
}
FAULTS = (
    SubsystemInjection.DROP_RESPONSE,
    SubsystemInjection.LATE_RESPONSE,
    SubsystemInjection.WRONG_ID,
    SubsystemInjection.WRONG_MAGIC,
    SubsystemInjection.CORRUPT_INDEX,
)
LATE_BY = 10 * 10**9
"""ns of device time: longer than drivers wait."""
OTHER_ID = 0x4000_0000


class Answers:
    """The message task's. `wake` has it call `send_overdue`."""

    def __init__(self, queue: OutQueue, hardware: Hardware, wake: Callable[[], None]) -> None:
        self.queue = queue
        self._hardware = hardware
        self._wake = wake
        self._overdue: deque[Payload] = deque()

    def send(self, payload: Payload) -> None:
        """What does not fit is dropped, as Arm's firmware does."""
        fault = None if isinstance(payload, Empty) else self._hardware.injections.take(*FAULTS)
        match fault:
            case SubsystemInjection.DROP_RESPONSE:
                return
            case SubsystemInjection.LATE_RESPONSE:
                clock = self._hardware.clock
                clock.call_at(clock.now() + LATE_BY, lambda: self._is_due(payload))
                return
            case SubsystemInjection.WRONG_ID if hasattr(payload, "user_arg"):
                payload.user_arg ^= OTHER_ID
        magic = MAGIC ^ 0xFF if fault is SubsystemInjection.WRONG_MAGIC else MAGIC
        if not self.queue.write(TYPES[type(payload)], bytes(payload), magic):
            log.warning(
                "%s: out_queue is full, %s is dropped",
                self._hardware.configuration.name,
                TYPES[type(payload)].name,
            )
            return
        if fault is SubsystemInjection.CORRUPT_INDEX:
            self.queue.corrupt()
        self._hardware.board.ring_host()

    def send_overdue(self) -> None:
        while self._overdue:
            self.send(self._overdue.popleft())

    def _is_due(self, payload: Payload) -> None:
        self._overdue.append(payload)
        self._wake()
