# SPDX-License-Identifier: Apache-2.0
"""A machine's Inferentia chips without a driver, each behind a vfio-user socket."""

from __future__ import annotations

from collections.abc import Sequence

from npubox.bus.vfio_user.listen import Listener
from npubox.bus.virtual import VirtualClock
from npubox.errors import DeviceError
from npubox.machines.neuron import NeuronPreset
from npubox.machines.neuron_part import LocalChips
from npubox.machines.preset import PresetInfo


class NeuronSockets:
    """Chips that wait for QEMU, or for a driver in another process; their pipe links are plugged in here."""

    def __init__(self, preset: NeuronPreset, paths: Sequence[str]) -> None:
        """One path for each chip. Raises DeviceError where a socket cannot be made there, OSError."""
        self.clock = VirtualClock()
        self._listeners: list[Listener] = []
        self._chips = LocalChips(preset, self.clock)
        try:
            for port, path in zip(self._chips.ports, paths, strict=True):
                self._listeners.append(Listener(port, path))
        except OSError as error:
            self.close()
            raise DeviceError(f"there can be no socket {error.strerror}") from error

    def close(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._chips.close()
        self.clock.close()


def find_chips(preset: PresetInfo) -> NeuronPreset:
    """The machine's chips. Raises DeviceError for a machine without any."""
    for part in preset.parts:
        if isinstance(part, NeuronPreset):
            return part
    raise DeviceError(
        f"machine {preset.name} has no PCI device: use inf1.xlarge, inf1.6xlarge or inf1.24xlarge"
    )
