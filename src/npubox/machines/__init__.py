# SPDX-License-Identifier: Apache-2.0
"""Virtual machines: what is plugged in, by real product.

Importing this is cheap; `open_preset` powers a machine up, which loads the devices and their compiled
kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from npubox.machines.preset import PresetInfo, find_preset, presets

if TYPE_CHECKING:
    from npubox.machines.machine import Machine

__all__ = ["PresetInfo", "open_preset", "presets"]


def open_preset(name: str) -> Machine:
    """Power up the machine called `name`, or the one whose NPU is called so (`ethos-u65-256`).

    Raises DeviceError that lists the names there are.
    """
    preset = find_preset(name)
    from npubox.machines.machine import Machine

    return Machine(preset)
