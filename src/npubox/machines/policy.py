# SPDX-License-Identifier: Apache-2.0
"""What the driver of a preset refuses."""

from __future__ import annotations

from npubox.devices.ethosu_npu.configuration import CONFIGURATIONS
from npubox.drivers.accel.ethosu.cmdstream import Policy
from npubox.errors import DeviceError
from npubox.hw.ethosu.registers import Product
from npubox.machines.preset import PresetInfo


def driver_policy(preset: PresetInfo) -> Policy:
    """What the preset's driver refuses. Raises DeviceError where such a driver has no such NPU."""
    try:
        policy = Policy(preset.policy)
    except ValueError:
        known = " or ".join(f'"{known}"' for known in Policy)
        raise DeviceError(f"a driver has no policy {preset.policy!r}: give {known}") from None
    if policy is Policy.MAINLINE and CONFIGURATIONS[preset.accelerator].product is not Product.U65:
        raise DeviceError(
            f'mainline\'s driver has no {preset.accelerator}: open {preset.name} with the policy "hardware"'
        )
    return policy
