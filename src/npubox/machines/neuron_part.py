# SPDX-License-Identifier: Apache-2.0
"""Inferentia chips and their driver, powered up in this process."""

from __future__ import annotations

from collections.abc import Sequence

from npubox.bus.virtual import AddressSpace, VirtualClock, VirtualPciPort
from npubox.core.caller import Caller
from npubox.core.file import OpenFile
from npubox.core.nodes import NodeInfo
from npubox.devices.neuron.chip import Inferentia, connect
from npubox.devices.neuron.memory import DramFile
from npubox.drivers.misc.neuron.driver import NeuronDriver
from npubox.drivers.misc.neuron.file import NeuronFile
from npubox.drivers.misc.neuron.host_memory import AddressFile
from npubox.drivers.misc.neuron.policy import Policy
from npubox.hw.neuron.address import DRAM_CHANNELS, dram_address
from npubox.machines.neuron import NeuronPreset
from npubox.machines.part import JobWatcher


class LocalChips:
    """Chips of this process in a chain, and their ports."""

    def __init__(self, preset: NeuronPreset, clock: VirtualClock, files: Sequence[DramFile] = ()) -> None:
        """`files` hold the chips' DRAM and stay their maker's; without them each chip has its own."""
        self.chips: list[Inferentia] = []
        self.ports: list[VirtualPciPort] = []
        for index, dram in enumerate(files or [None] * preset.chips):
            dma = AddressSpace()
            chip = Inferentia(
                dma,
                clock,
                address=preset.address(index),
                device=preset.device,
                revision=preset.revision,
                dram=dram,
            )
            self.chips.append(chip)
            self.ports.append(VirtualPciPort(chip, dma, clock))
        connect(self.chips)

    def close(self) -> None:
        for chip in self.chips:
            chip.close()


class NeuronPart:
    """A `Part`. Each chip's DRAM and host memory are one file, in which an offset is the address: so every
    mapping that the driver allows is native. `chips` and `driver` are for the control channel."""

    processes: frozenset[int] = frozenset()

    def __init__(self, preset: NeuronPreset, policy: Policy, clock: VirtualClock) -> None:
        self.job_watcher: JobWatcher | None = None
        self.nodes: Sequence[NodeInfo] = preset.nodes
        self._files = [AddressFile() for _ in range(preset.chips)]
        channels = tuple(dram_address(channel) for channel in range(DRAM_CHANNELS))
        self._local = LocalChips(preset, clock, [DramFile(file.fd, channels) for file in self._files])
        self.chips = self._local.chips
        self.driver = NeuronDriver(self._local.ports, self._files, policy, isolate=preset.isolate)

    def open(self, node: NodeInfo, flags: int, caller: Caller) -> OpenFile:
        return NeuronFile(self.driver.devices[node.minor], flags, caller)

    def close(self) -> None:
        self.driver.close()
        self._local.close()
        for file in self._files:
            file.close()
