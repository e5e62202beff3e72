# SPDX-License-Identifier: Apache-2.0
"""Notification queues: memory that the device writes and programs poll (facts, neuron.md §7)."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from npubox.bus.port import PciDevice
from npubox.drivers.misc.neuron.memory import Chunk, Lifetime, Memory, Request
from npubox.drivers.misc.neuron.policy import Policy
from npubox.hw.neuron.address import CORES
from npubox.hw.neuron.pci import Bar
from npubox.hw.neuron.putils import ENGINE_INSTANCES, NotificationType, putils_base, queue_registers
from npubox.uapi.neuron import MemType

ENGINES_OF_ID = 6
IDS = 96
STOPPED_ENGINES = 16
PER_ENGINE = (NotificationType.TRACE, NotificationType.NOTIFY)


@dataclass(frozen=True)
class NqRequest:
    """What an INIT asks for. `size` in bytes; host memory or that channel and region of the device's."""

    core: int
    kind: int
    engine: int
    size: int
    host: bool
    channel: int = 0
    region: int = 0
    force: bool = False


class Notifications:
    """The queues of one device. Guarded by the driver's lock."""

    def __init__(self, port: PciDevice, memory: Memory, policy: Policy) -> None:
        self._port = port
        self._memory = memory
        self._policy = policy
        self._queues: dict[tuple[int, int], Chunk] = {}

    def initialise(self, request: NqRequest, owner: int) -> Chunk:
        """Give the device a queue, for process `owner`; an existing one stays as it is unless forced. EINVAL,
        ENOMEM."""
        key = self._check(request)
        present = self._queues.get(key)
        if present is not None and not request.force:
            return present
        if present is not None:
            self._memory.free(present)
        chunk = self._memory.allocate(
            Request(
                request.size,
                request.host,
                request.channel,
                request.region,
                request.core,
                0 if request.host else request.size,
                MemType.NOTIFICATION_HOST if request.host else MemType.NOTIFICATION_DEV,
            ),
            Lifetime.DEVICE,
            owner,
        )
        self._queues[key] = chunk
        self._program(request.core, NotificationType(request.kind), request.engine, chunk.pa, request.size)
        return chunk

    def stop(self, core: int) -> None:
        """Stop and free a core's queues: each, as the module does, through every register set of its id."""
        for engine in range(STOPPED_ENGINES):
            for kind in NotificationType:
                if (core, kind * ENGINES_OF_ID + engine) in self._queues:
                    self._program(core, kind, engine, 0, 0)
        self._free([key for key in self._queues if key[0] == core])

    def release(self, owner: int) -> None:
        """Stop and free a process's queues."""
        mine = [key for key, chunk in self._queues.items() if chunk.owner == owner]
        for core, number in mine:
            kind, engine = divmod(number, ENGINES_OF_ID)
            self._program(core, NotificationType(kind), engine, 0, 0)
        self._free(mine)

    def _free(self, keys: list[tuple[int, int]]) -> None:
        for key in keys:
            self._memory.free(self._queues.pop(key))

    def _check(self, request: NqRequest) -> tuple[int, int]:
        if not request.size or request.size & (request.size - 1):
            raise OSError(errno.EINVAL, f"{request.size} is no power of two")
        if request.core >= CORES:
            raise OSError(errno.EINVAL, f"the device has no core {request.core}")
        if request.kind not in list(NotificationType):
            raise OSError(errno.EINVAL, f"this generation has no notification queues of type {request.kind}")
        number = request.kind * ENGINES_OF_ID + request.engine
        if number >= IDS:
            raise OSError(errno.EINVAL, f"there is no notification engine {request.engine}")
        instances = ENGINE_INSTANCES if request.kind in PER_ENGINE else 1
        if self._policy is Policy.STRICT and request.engine >= instances:
            raise OSError(errno.EINVAL, f"queues of type {request.kind} have no engine {request.engine}")
        return request.core, number

    def _program(self, core: int, kind: NotificationType, engine: int, base: int, size: int) -> None:
        registers = queue_registers(kind, engine)
        block = putils_base(core)
        for offset, value in (
            (registers.base_lo, base & 0xFFFF_FFFF),
            (registers.base_hi, base >> 32),
            (registers.size, size),
        ):
            self._port.write32(Bar.APB, block + offset, value)
