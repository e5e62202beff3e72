# SPDX-License-Identifier: Apache-2.0
"""What the driver of a preset refuses."""

from __future__ import annotations

from npubox.devices.ethosu_npu.configuration import CONFIGURATIONS
from npubox.drivers.accel.ethosu.cmdstream import Policy
from npubox.errors import DeviceError
from npubox.hw.ethosu.registers import Product
from npubox.machines.npu import NpuPreset
from npubox.machines.part import Board


def driver_policy(npu: NpuPreset, board: Board) -> Policy:
    """What the driver of the board's NPU refuses. Raises DeviceError where such a driver has no such NPU."""
    try:
        policy = Policy(board.policy)
    except ValueError:
        known = " or ".join(f'"{known}"' for known in Policy)
        raise DeviceError(f"a driver has no policy {board.policy!r}: give {known}") from None
    if policy is Policy.MAINLINE and CONFIGURATIONS[npu.accelerator].product is not Product.U65:
        raise DeviceError(
            f'mainline\'s driver has no {npu.accelerator}: open {board.machine} with the policy "hardware"'
        )
    return policy
