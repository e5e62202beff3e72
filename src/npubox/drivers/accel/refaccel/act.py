# SPDX-License-Identifier: Apache-2.0
"""The module parameter `act`: the device goes away at the program's word, to see what becomes of its
users."""

from __future__ import annotations

import errno

from npubox.core.drm.device import DrmDevice
from npubox.core.file import OpenFile, TokenStandIn


class ActFile(OpenFile):
    """`u` unplugs the device, `r` unregisters it."""

    link = "/sys/module/refaccel/parameters/act"

    def __init__(self, device: DrmDevice) -> None:
        self._device = device
        self.stand_in = TokenStandIn()

    def write(self, data: bytes) -> int:
        """OSError EINVAL for another word."""
        match data.strip():
            case b"u":
                self._device.unplug()
            case b"r":
                self._device.unregister()
            case word:
                raise OSError(errno.EINVAL, f"{word!r} is no action of refaccel: u or r")
        return len(data)
