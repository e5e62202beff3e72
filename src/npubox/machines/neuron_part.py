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


class NeuronPart:
    """A `Part`. Each chip's DRAM and host memory are one file, in which an offset is the address: so every
    mapping that the driver allows is native. `chips` and `driver` are for the control channel."""

    processes: frozenset[int] = frozenset()

    def __init__(self, preset: NeuronPreset, policy: Policy, clock: VirtualClock) -> None:
        self.job_watcher: JobWatcher | None = None
        self.nodes: Sequence[NodeInfo] = preset.nodes
        self.chips: list[Inferentia] = []
        self._files: list[AddressFile] = []
        ports = []
        for index in range(preset.chips):
            file, dma = AddressFile(), AddressSpace()
            self._files.append(file)
            chip = Inferentia(
                dma,
                clock,
                address=preset.address(index),
                device=preset.device,
                revision=preset.revision,
                dram=DramFile(file.fd, tuple(dram_address(channel) for channel in range(DRAM_CHANNELS))),
            )
            self.chips.append(chip)
            ports.append(VirtualPciPort(chip, dma, clock))
        connect(self.chips)
        self.driver = NeuronDriver(ports, self._files, policy, isolate=preset.isolate)

    def open(self, node: NodeInfo, flags: int, caller: Caller) -> OpenFile:
        return NeuronFile(self.driver.devices[node.minor], flags, caller)

    def close(self) -> None:
        self.driver.close()
        for chip in self.chips:
            chip.close()
        for file in self._files:
            file.close()
