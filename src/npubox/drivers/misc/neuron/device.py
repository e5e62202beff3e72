# SPDX-License-Identifier: Apache-2.0
"""One chip behind one node: its parts, its resets, what ends with a process."""

from __future__ import annotations

import errno
import threading
from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

from npubox.bus.port import PciDevice
from npubox.drivers.misc.neuron import reset
from npubox.drivers.misc.neuron.copies import CopyQueue
from npubox.drivers.misc.neuron.core_states import Core
from npubox.drivers.misc.neuron.crwl import CoreLock
from npubox.drivers.misc.neuron.engines import Engines
from npubox.drivers.misc.neuron.fwio import Fwio
from npubox.drivers.misc.neuron.host_memory import AddressFile, unless_gone
from npubox.drivers.misc.neuron.memory import MOST_CORES, Chunk, Lifetime, Memory
from npubox.drivers.misc.neuron.metrics import Metrics
from npubox.drivers.misc.neuron.notifications import Notifications
from npubox.drivers.misc.neuron.processes import Datastores, Processes
from npubox.drivers.misc.neuron.user_queues import UserQueues
from npubox.drivers.misc.neuron.work import Steps, Turns, Work, Worker, run
from npubox.hw.neuron import udma
from npubox.hw.neuron.address import CORES
from npubox.uapi.neuron import WHOLE_DEVICE

if TYPE_CHECKING:
    from npubox.drivers.misc.neuron.driver import NeuronDriver


class DeviceState(IntEnum):
    """What the sysfs file `reset` reads."""

    RESET = 0
    READY = 1
    INVALID = 2


class NeuronDevice:
    """Guarded by the driver's lock, which is one for all chips, as core marks and host memory are."""

    def __init__(self, driver: NeuronDriver, index: int, port: PciDevice, file: AddressFile) -> None:
        self.driver = driver
        self.index = index
        self.name = f"neuron{index}"
        self.port = port
        self.lock = driver.lock
        self.state = DeviceState.RESET
        self.metrics = Metrics()
        self.memory = Memory(driver.bus, file, self._memory_changed)
        self.engines = Engines(port)
        self.fwio = Fwio(port, self.memory)
        self.copies: list[CopyQueue] = []
        self.queues = UserQueues(self.engines, self.memory)
        self.notifications = Notifications(port, self.memory, driver.policy)
        self.processes = Processes()
        self.datastores = Datastores(self.memory, self.metrics.fold)
        self.locks = [CoreLock() for _ in range(MOST_CORES)]
        self.cores = [Core() for _ in range(CORES)]
        self.resets: dict[int, Work] = {}
        self.worker = Worker(self.name, self.lock, port)
        self._resetter = reset.Resetter(port, self.fwio, index)
        self._reset_turns = Turns()
        self._settled = threading.Event()

    def _memory_changed(self, chunk: Chunk, sign: int) -> None:
        self.metrics.count_memory(chunk, sign)
        self.driver.isolation.memory_changed(self, chunk, sign)

    @property
    def revision(self) -> int:
        return self.port.identity.revision

    def full_reset(self) -> None:
        """Reset the whole chip and wait: what probing and a write to sysfs do. Without the lock.

        Whatever comes of it is the device's `state`. OSError EBUSY while processes are attached.
        """
        with self.lock:
            if self.processes:
                raise OSError(errno.EBUSY, f"{self.name} is open")
            self.state = DeviceState.RESET
            self._settled.clear()
        try:
            run(self._reset(range(CORES), reset.DEVICE), self.lock, self.port.clock)
            self.state = DeviceState.READY
        except OSError:
            self.state = DeviceState.INVALID
        finally:
            self._settled.set()

    def wait_settled(self) -> None:
        """Return when no full reset is in progress. OSError EINVAL where the last one failed."""
        self._settled.wait()
        if self.state is not DeviceState.READY:
            raise OSError(errno.EINVAL, f"{self.name} failed to reset")

    def begin_reset(self, request: int, core_map: int) -> None:
        """Queue a reset of the cores in the map, or of the whole device; `resets[request]` is its outcome."""
        whole = core_map == WHOLE_DEVICE
        cores = [core for core in range(CORES) if whole or core_map >> core & 1]
        for core in cores:
            self.cores[core].invalidate()
            self.notifications.stop(core)
        self.resets[request] = self.worker.start(self._reset(cores, reset.DEVICE if whole else reset.CORES))

    def _reset(self, cores: Sequence[int], kind: reset.ResetKind) -> Steps[None]:
        ticket = yield from self._reset_turns.take()
        try:
            for core in cores:
                self.cores[core].invalidate()
                self.notifications.stop(core)
            self.metrics.count_reset(cores, "reset_req_count")
            try:
                yield from self._resetter.reset(kind)
            except OSError:
                self.metrics.count_reset(cores, "reset_fail_count")
                raise
            for core in cores:
                self._set_up(core)
            if kind is reset.DEVICE:
                self.driver.restore_isolation(self)
        finally:
            self._reset_turns.leave(ticket)

    def _set_up(self, core: int) -> None:
        first = core * udma.ENGINES_PER_CORE
        engines = range(first, first + udma.ENGINES_PER_CORE)
        for engine in engines:
            self.engines.initialise(engine)
        self.queues.forget(engines)
        if core < len(self.copies):
            self.copies[core].reset()
        else:
            clock = self.port.clock
            self.copies.append(CopyQueue(core, self.engines, self.memory, clock, self.revision))

    def copy_queue(self, core: int) -> CopyQueue:
        """OSError EPERM for a core that the chip does not have."""
        if core >= len(self.copies):
            raise OSError(errno.EPERM, f"{self.name} has no engine that copies for core {core}")
        return self.copies[core]

    def free(self, chunk: Chunk) -> None:
        self.memory.free(chunk)

    def process_gone(self, pid: int) -> None:
        """A process closed the device for the last time, or died: nothing of it stays."""
        with unless_gone():
            self.queues.release(pid)
        for lock in self.locks:
            lock.release(pid)
        self.datastores.release(pid)
        self.resets.pop(pid, None)
        chunks = [chunk for chunk in self.memory if chunk.lifetime is Lifetime.PROCESS and chunk.owner == pid]
        self.memory.free_all(chunks)
        if self.driver.isolate:
            self.notifications.release(pid)
        self.driver.released(pid)
        if not self.processes:
            self.datastores.release_all()

    def close(self) -> None:
        """The machine is powered down. Without the lock."""
        self.worker.close()
        with self.lock:
            self.memory.close()
