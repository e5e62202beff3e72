# SPDX-License-Identifier: Apache-2.0
"""The process that a part's device runs in, as the driver's side holds it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress

from npubox.bus.remote import RemoteLink, RemotePort
from npubox.bus.wire import Kind, pack
from npubox.machines.part import Spawn


class DeviceLink:
    """`port` leads to the device in process `pid`; what it reports goes to `hear`. OSError where the process
    does not come up."""

    def __init__(self, spawn: Spawn, hear: Callable[[bytes], None]) -> None:
        self.pid, channel = spawn()
        self._link = RemoteLink(channel, hear)
        self.port = RemotePort(self._link)

    def order(self, text: str) -> None:
        """Something for the device from the control channel."""
        self._link.post(pack(Kind.ORDER, data=text.encode()))

    def on_lost(self, lost: Callable[[], None]) -> None:
        """Call `lost`, on another thread, when the process has died by itself."""
        self._link.on_lost(lost)

    def end(self) -> None:
        """End the process."""
        self._link.close()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
