# SPDX-License-Identifier: Apache-2.0
"""Inferentia chips in a process of their own, reached over vfio-user; their driver is here.

A chip at work then takes nothing from the process that serves programs. Each call costs a socket's way
more, and device time is the host's.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress

from npubox.bus.vfio_user.client import VfioUserDevice
from npubox.drivers.misc.neuron.policy import Policy
from npubox.machines.neuron import NeuronPreset
from npubox.machines.neuron_part import DrivenChips
from npubox.machines.neuron_sockets import NeuronSockets
from npubox.machines.part import Spawn

READY = b"ready"
LONGEST_PATH = 4096
_log = logging.getLogger(__name__)


class ApartNeuronPart(DrivenChips):
    """A `Part` whose chips are process `device_pid`. When that dies, nodes answer ENODEV from then on."""

    def __init__(self, preset: NeuronPreset, policy: Policy, spawn: Spawn) -> None:
        """OSError where the process does not come up."""
        super().__init__(preset)
        self.device_pid, self._channel = spawn()
        self.processes = frozenset({self.device_pid})
        self._closing = False
        self._ports: list[VfioUserDevice] = []
        try:
            self._connect()
            self.probe(self._ports, policy)
        except BaseException:
            self._end_process()
            raise
        self._watch = threading.Thread(target=self._wait_for_death, name="npubox-neuron-apart", daemon=True)
        self._watch.start()

    def _connect(self) -> None:
        preset = self._preset
        with tempfile.TemporaryDirectory(prefix="npubox-chips-") as directory:
            self._channel.send(directory.encode())
            if self._channel.recv(len(READY)) != READY:
                raise OSError("the process of the chips did not come up")
            for index, path in enumerate(_paths(directory, preset.chips)):
                self._ports.append(VfioUserDevice(path, preset.address(index)))
            # Connected: nobody needs the names any more, and none is left behind whatever dies first.
            for path in _paths(directory, preset.chips):
                os.unlink(path)

    def close(self) -> None:
        self._closing = True
        self._end_process()
        self._watch.join()
        super().close()
        for port in self._ports:
            port.close()
        self._channel.close()

    def _end_process(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.device_pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.device_pid, 0)

    def _wait_for_death(self) -> None:
        self._channel.recv(1)
        if not self._closing:
            _log.error("the process of the chips died: %s answer ENODEV from now on", self.nodes[0].path)
            self.driver.close()


def run_chips(preset: NeuronPreset, channel: socket.socket) -> None:
    """The chips' own process: serve them until the driver's end of `channel` closes."""
    directory = channel.recv(LONGEST_PATH).decode()
    sockets = NeuronSockets(preset, _paths(directory, preset.chips))
    channel.send(READY)
    channel.recv(1)
    del sockets


def _paths(directory: str, chips: int) -> Sequence[str]:
    return [os.path.join(directory, str(chip)) for chip in range(chips)]
