# SPDX-License-Identifier: Apache-2.0
"""A whole Inferentia: what its BARs lead to, its reset, its pipe links."""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from npubox.bus.port import BarInfo, PciIdentity
from npubox.bus.virtual import AddressSpace, VirtualClock
from npubox.devices.neuron.address_map import UNMAPPED_VALUE, AddressMap
from npubox.devices.neuron.blocks import Block, BlockTable, Placed, RegisterFile
from npubox.devices.neuron.core import Synchronisers
from npubox.devices.neuron.faults import QueueFault
from npubox.devices.neuron.firmware import Firmware
from npubox.devices.neuron.gate import Gate
from npubox.devices.neuron.memory import DramFile, LocalMemory
from npubox.devices.neuron.notifications import Putils
from npubox.devices.neuron.power import PowerMeter
from npubox.devices.neuron.udma import Engine
from npubox.devices.neuron.worker import Worker
from npubox.hw.neuron import gate, misc_ram, pci, putils, udma
from npubox.hw.neuron.address import CORE_WINDOW_SIZE, CORE_WINDOWS, CORES, DRAM_CHANNEL_SIZE, dram_address
from npubox.hw.neuron.core_window import EVENTS, SEMAPHORES_END
from npubox.hw.neuron.pci import Bar

_KEPT_FAULTS = 64
_APB, _AXI = int(Bar.APB), int(Bar.AXI)


class FaultRecord(NamedTuple):
    """A DMA queue that stopped, as the control channel tells it."""

    engine: int
    queue: int
    fault: QueueFault


class Inferentia:
    """One virtual chip. Register accesses may come from any thread; data moves on the chip's own.

    `dma` is the host's memory as the chip reaches it, at bus addresses. The chip has no interrupts.
    """

    vectors = 0

    def __init__(
        self,
        dma: AddressSpace,
        clock: VirtualClock,
        *,
        address: str = "0000:00:1c.0",
        device: int = pci.DEVICE_IDS[0],
        revision: int = pci.Revision.SILICON,
        dram: DramFile | None = None,
    ) -> None:
        """`dram` stays its maker's to close; without it the chip has a file of its own. Raises OSError."""
        self.identity = PciIdentity(address, pci.VENDOR_ID, device, revision, pci.CLASS_CODE)
        self._own_dram = None if dram is not None else DramFile.anonymous()
        file = dram or self._own_dram
        assert file is not None
        self.bars: Mapping[int, BarInfo] = {
            Bar.APB: BarInfo(pci.BAR_SIZE[Bar.APB]),
            Bar.AXI: BarInfo(pci.BAR_SIZE[Bar.AXI]),
            Bar.DRAM: BarInfo(pci.BAR_SIZE[Bar.DRAM], file.areas(), prefetchable=True),
        }
        self._lock = threading.RLock()
        self.memory = AddressMap(LocalMemory(file), self, dma)
        self._worker = Worker(f"npubox-neuron-{address}", clock)
        dma.settle = self._worker.settle
        self._gate = Gate()
        self.faults: deque[FaultRecord] = deque(maxlen=_KEPT_FAULTS)
        """The last DMA queues that stopped: part of the control channel."""
        self.fault_watcher: Callable[[FaultRecord], None] | None = None
        """Told of each, on the chip's worker: it must not block."""
        engines = [
            Engine(number, self.memory, self._gate, clock, self._worker, self._lock, self._queue_failed)
            for number in range(udma.ENGINES)
        ]
        self._putils = [Putils(core, self.memory, clock) for core in range(CORES)]
        self._cores = [Synchronisers(block.event) for block in self._putils]
        power = PowerMeter(clock, lambda: sum(engine.busy for engine in engines), len(engines))
        self.firmware = Firmware(self.memory, power, self._reset_blocks)
        self._apb = BlockTable(
            [
                *(Placed(udma.engine_base(n), udma.ENGINE_SIZE, engine) for n, engine in enumerate(engines)),
                *(Placed(udma.tdma_base(n), udma.TDMA_SIZE, RegisterFile()) for n in range(udma.ENGINES)),
                *(Placed(putils.putils_base(n), putils.SIZE, block) for n, block in enumerate(self._putils)),
                Placed(gate.BASE, gate.SIZE, self._gate),
            ]
        )
        self._misc = Placed(misc_ram.BASE, misc_ram.SIZE, self.firmware)

    def read32(self, bar: int, offset: int) -> int:
        """The word at an aligned `offset` of a BAR, within its size."""
        if bar == _APB:
            found = self._block(offset)
            return found[0].read(found[1]) if found else UNMAPPED_VALUE
        if bar == _AXI:
            core, within = divmod(offset, CORE_WINDOW_SIZE)
            if EVENTS <= within < SEMAPHORES_END:
                return self._cores[core].read(within)
        return self.memory.read32(_device_address(bar, offset))

    def write32(self, bar: int, offset: int, value: int) -> None:
        """Never waits for the work that it starts; a queue's reset waits for what the queue is doing."""
        with self._lock:
            unsettled = self._write(bar, offset, value)
        if unsettled:
            self._worker.settle()

    def lend(self) -> bool:
        """Do a piece of the queues' work on the calling thread. Whether there was any."""
        return self._worker.lend()

    def reset(self) -> None:
        """The function's reset: as the firmware's device reset. DRAM keeps its content."""
        with self._lock:
            self.firmware.reset()
            self._reset_blocks()
        self._worker.settle()

    def close(self) -> None:
        """Power down: no queue works any more."""
        self._worker.close()
        if self._own_dram is not None:
            os.close(self._own_dram.fd)
            self._own_dram = None

    def _write(self, bar: int, offset: int, value: int) -> bool:
        """As `Block.write`."""
        if bar == _APB:
            found = self._block(offset)
            return found is not None and found[0].write(found[1], value)
        if bar == _AXI:
            core, within = divmod(offset, CORE_WINDOW_SIZE)
            if EVENTS <= within < SEMAPHORES_END:
                self._cores[core].write(within, value)
                return False
        self.memory.write_memory(_device_address(bar, offset), value.to_bytes(4, "little"))
        return False

    def _block(self, offset: int) -> tuple[Block, int] | None:
        base, size, firmware = self._misc
        if base <= offset < base + size:
            return firmware, offset - base
        return self._apb.find(offset)

    def _reset_blocks(self) -> None:
        self._apb.reset()
        for core in self._cores:
            core.reset()

    def _queue_failed(self, engine: int, queue: int, fault: QueueFault) -> None:
        record = FaultRecord(engine, queue, fault)
        self.faults.append(record)
        if self.fault_watcher is not None:
            self.fault_watcher(record)
        with self._lock:
            self._putils[engine // udma.ENGINES_PER_CORE].error(engine << 4 | queue, fault.code)


def connect(chips: Sequence[Inferentia]) -> None:
    """Link chips to a chain: the east neighbour of each is the next (facts, neuron.md §9.1)."""
    for west, east in itertools.pairwise(chips):
        west.memory.east = east.memory
        east.memory.west = west.memory


def _device_address(bar: int, offset: int) -> int:
    """The address of a byte of BAR 2 or 4."""
    if bar == _AXI:
        return CORE_WINDOWS + offset
    return dram_address(*divmod(offset, DRAM_CHANNEL_SIZE))
