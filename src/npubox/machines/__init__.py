# SPDX-License-Identifier: Apache-2.0
"""Virtual machines: what is plugged in, by real product.

Importing this is cheap; `open_preset` powers a machine up, which loads the devices and their compiled
kernels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from npubox.machines.preset import PresetInfo, find_preset, presets

if TYPE_CHECKING:
    from npubox.machines.machine import Machine

__all__ = ["PresetInfo", "kernels_ready", "open_preset", "presets"]


def kernels_ready() -> bool:
    """Whether the devices' kernels were compiled before; if not, the next `open_preset` of this user takes
    half a minute to a minute longer. Tells without loading the compiler."""
    from npubox.devices import kernel_cache

    return kernel_cache.complete()


def open_preset(name: str, policy: str | None = None) -> Machine:
    """Power up the machine called `name`, or the one whose NPU is called so (`ethos-u65-256`), with another
    policy of its driver where one is given.

    Raises DeviceError that lists the names there are, or where mainline's driver has no such NPU.
    """
    preset = find_preset(name)
    if policy is not None:
        preset = replace(preset, policy=policy)
    from npubox.devices import kernel_cache
    from npubox.machines.machine import Machine

    if preset.compiled and not kernels_ready():
        kernel_cache.mark_complete()
    return Machine(preset)
