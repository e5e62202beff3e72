# SPDX-License-Identifier: Apache-2.0
"""What the drivers of a preset refuse."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from npubox.devices.ethosu_npu.configuration import CONFIGURATIONS
from npubox.drivers.accel.ethosu.cmdstream import Policy
from npubox.drivers.misc.ethosu.file import Policy as SubsystemPolicy
from npubox.errors import DeviceError
from npubox.hw.ethosu.registers import Product
from npubox.machines.npu import NpuPreset
from npubox.machines.part import Board

PolicyT = TypeVar("PolicyT", bound=StrEnum)


def driver_policy(npu: NpuPreset, board: Board) -> Policy:
    """What the driver of the board's NPU refuses. Raises DeviceError where such a driver has no such NPU."""
    policy = _policy(Policy, board)
    if policy is Policy.MAINLINE and CONFIGURATIONS[npu.accelerator].product is not Product.U65:
        raise DeviceError(
            f'mainline\'s driver has no {npu.accelerator}: open {board.machine} with the policy "hardware"'
        )
    return policy


def subsystem_policy(board: Board) -> SubsystemPolicy:
    """How the driver of the board's subsystem answers bad calls. Raises DeviceError where it has no such."""
    return _policy(SubsystemPolicy, board)


def _policy(policies: type[PolicyT], board: Board) -> PolicyT:
    try:
        return policies(board.policy)
    except ValueError:
        known = " or ".join(f'"{known}"' for known in policies)
        raise DeviceError(f"a driver has no policy {board.policy!r}: give {known}") from None
