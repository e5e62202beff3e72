# SPDX-License-Identifier: Apache-2.0
"""Inferentia chips and their driver, powered up in this process."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence

from npubox.bus.port import PciDevice
from npubox.bus.virtual import AddressSpace, VirtualClock, VirtualPciPort
from npubox.core.caller import Caller
from npubox.core.file import OpenFile
from npubox.core.nodes import NodeInfo
from npubox.devices.neuron.chip import FaultRecord, Inferentia, connect
from npubox.devices.neuron.memory import DramFile
from npubox.drivers.misc.neuron.driver import NeuronDriver
from npubox.drivers.misc.neuron.file import NeuronFile
from npubox.drivers.misc.neuron.host_memory import AddressFile
from npubox.drivers.misc.neuron.policy import Policy
from npubox.drivers.misc.neuron.sysfs import files, store
from npubox.hw.neuron.address import DRAM_CHANNELS, dram_address
from npubox.machines.neuron import NeuronPreset
from npubox.machines.part import AttributeWatcher, FaultWatcher, JobWatcher


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


ATTRIBUTES_PERIOD = 0.1  # seconds


class DrivenChips:
    """A `Part` but for its chips: their driver, which is for the control channel too, and their nodes."""

    processes: frozenset[int] = frozenset()
    driver: NeuronDriver

    def __init__(self, preset: NeuronPreset) -> None:
        self._preset = preset
        self._attributes: AttributeThread | None = None
        self.job_watcher: JobWatcher | None = None
        self.nodes: Sequence[NodeInfo] = preset.nodes
        self.files = [AddressFile() for _ in range(preset.chips)]

    def probe(self, ports: Sequence[PciDevice], policy: Policy) -> None:
        """Have the driver take the chips. OSError."""
        self.driver = NeuronDriver(ports, self.files, policy, isolate=self._preset.isolate)

    def attributes(self, node: NodeInfo) -> dict[str, str]:
        """The files of a node's directory in sysfs as they are now."""
        device = self.driver.devices[node.minor]
        with device.lock:
            return files(device.state, self._preset.neighbours(node.minor), device.metrics)

    def write_attribute(self, node: NodeInfo, name: str, text: str) -> None:
        """Write to one of them, such as `reset`. OSError."""
        store(self.driver.devices[node.minor], name, text)

    def watch_attributes(self, watcher: AttributeWatcher) -> None:
        """Have `watcher` told of nodes whose files have changed, on a thread of its own, soon."""
        self._attributes = AttributeThread(self, watcher)

    def open(self, node: NodeInfo, flags: int, caller: Caller) -> OpenFile:
        return NeuronFile(self.driver.devices[node.minor], flags, caller)

    def close(self) -> None:
        """The driver lets go of the chips."""
        if self._attributes is not None:
            self._attributes.close()
        self.driver.close()
        for file in self.files:
            file.close()


class NeuronPart(DrivenChips):
    """A `Part` in this process. Each chip's DRAM and host memory are one file, in which an offset is the
    address: so every mapping that the driver allows is native. `chips` are for the control channel."""

    def __init__(self, preset: NeuronPreset, policy: Policy, clock: VirtualClock) -> None:
        super().__init__(preset)
        channels = tuple(dram_address(channel) for channel in range(DRAM_CHANNELS))
        self._local = LocalChips(preset, clock, [DramFile(file.fd, channels) for file in self.files])
        self.chips = self._local.chips
        self.probe(self._local.ports, policy)

    def watch_faults(self, watcher: FaultWatcher) -> None:
        """Have `watcher` told of each DMA queue that stops."""
        for node, chip in zip(self.nodes, self.chips, strict=True):
            chip.fault_watcher = functools.partial(_tell, watcher, node.path)

    def close(self) -> None:
        super().close()
        self._local.close()


def _tell(watcher: FaultWatcher, path: str, record: FaultRecord) -> None:
    watcher(path, f"DMA engine {record.engine} queue {record.queue}", str(record.fault))


class AttributeThread:
    """Looks, a few times a second, which nodes' files have changed."""

    def __init__(self, part: DrivenChips, watcher: AttributeWatcher) -> None:
        self._part = part
        self._watcher = watcher
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="npubox-neuron-sysfs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(ATTRIBUTES_PERIOD):
            for node in self._part.nodes:
                metrics = self._part.driver.devices[node.minor].metrics
                if metrics.changed:
                    metrics.changed = False
                    self._watcher(node, self._part.attributes(node))
