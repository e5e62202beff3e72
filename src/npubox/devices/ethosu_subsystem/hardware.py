# SPDX-License-Identifier: Apache-2.0
"""What the firmware runs on, as the subsystem gives it to each boot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from npubox.bus.virtual import VirtualClock
from npubox.devices.ethosu_npu.memory import Memory
from npubox.devices.ethosu_subsystem.configuration import Range, SubsystemConfiguration
from npubox.devices.ethosu_subsystem.faults import Injections
from npubox.devices.ethosu_subsystem.npu_driver import NpuDriver
from npubox.devices.ethosu_subsystem.schedule import Schedule
from npubox.hw.ethosu.core_interface import InferenceReq, InferenceRsp


class Board(Protocol):
    """What is around the Cortex-M."""

    def ring_host(self) -> None:
        """Ring the host's doorbell."""

    def take_doorbell(self) -> None:
        """Clear the doorbell that the host rang."""

    def inference_began(self, npu: int) -> None:
        """For the control channel: this NPU has taken an inference."""

    def inference_ended(
        self, npu: int, request: InferenceReq, answer: InferenceRsp, reason: str | None
    ) -> None:
        """For the control channel: how it ended, before the host is told."""


@dataclass(frozen=True)
class Hardware:
    """`networks` are where the firmware's own lie."""

    configuration: SubsystemConfiguration
    memory: Memory
    clock: VirtualClock
    drivers: Sequence[NpuDriver]
    schedule: Schedule[InferenceReq]
    networks: Sequence[Range]
    injections: Injections
    board: Board
