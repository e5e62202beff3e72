# SPDX-License-Identifier: Apache-2.0
"""The builder: powers a preset's parts up, in this process or with their devices in processes of their
own."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from npubox.bus.virtual import VirtualClock
from npubox.core import uevent
from npubox.core.caller import Caller
from npubox.core.drm import debugfs
from npubox.core.drm.device import DrmDevice
from npubox.core.file import OpenFile
from npubox.core.node import Node, own_caller
from npubox.core.nodes import NodeInfo
from npubox.core.uevent import Uevent
from npubox.errors import DeviceError
from npubox.machines.npu import NpuPreset
from npubox.machines.part import (
    AttributeWatcher,
    Board,
    FaultWatcher,
    HasMailbox,
    JobWatcher,
    LivePart,
    MessageWatcher,
    Part,
    TellsFaults,
    spawn_device,
)
from npubox.machines.preset import PresetInfo

if TYPE_CHECKING:
    from npubox.bus.port import MemoryPool
    from npubox.devices.ethosu_npu.npu import VirtualNpu
    from npubox.devices.ethosu_npu.run import Injection
    from npubox.machines.control import Control, OperationOutput
    from npubox.machines.npu_part import NpuPart


@dataclass(frozen=True)
class MachineInfo:
    """What a client compiles for; `policy` is the driver's: "mainline" or "hardware". The NPU's fields are
    those of the first one behind mainline's driver, None where there is none."""

    name: str
    accelerator: str | None
    vela_system_config: str | None
    vela_memory_mode: str | None
    policy: str


class Parts:
    """The parts of a machine. `close` powers them down, last plugged first."""

    def __init__(self, preset: PresetInfo, *, split: bool) -> None:
        """`split`: devices in processes of their own. Raises DeviceError, OSError as a part does."""
        self.clock = VirtualClock()
        board = Board(preset.name, preset.policy, self.clock)
        self.parts: list[Part] = []
        try:
            for index, part in enumerate(preset.parts):
                spawn = functools.partial(spawn_device, preset.name, index)
                self.parts.append(part.plug_split(board, spawn) if split else part.plug(board))
        except BaseException:
            self.close()
            raise

    @property
    def nodes(self) -> Sequence[NodeInfo]:
        return [node for part in self.parts for node in part.nodes]

    @property
    def processes(self) -> frozenset[int]:
        return frozenset().union(*(part.processes for part in self.parts))

    def watch_jobs(self, watcher: JobWatcher | None) -> None:
        for part in self.parts:
            part.job_watcher = watcher

    def watch_attributes(self, watcher: AttributeWatcher) -> None:
        """Have `watcher` told of files in sysfs that change."""
        for part in self.parts:
            if isinstance(part, LivePart):
                part.watch_attributes(watcher)

    def watch_messages(self, watcher: MessageWatcher) -> None:
        for part in self.parts:
            if isinstance(part, HasMailbox):
                part.watch_messages(watcher)

    def watch_faults(self, watcher: FaultWatcher) -> None:
        for part in self.parts:
            if isinstance(part, TellsFaults):
                part.watch_faults(watcher)

    def open(self, node: NodeInfo, flags: int, caller: Caller) -> OpenFile:
        """OSError with the kernel's errno; KeyError for a node of another machine."""
        return self._by_node[node].open(node, flags, caller)

    @functools.cached_property
    def _by_node(self) -> dict[NodeInfo, Part]:
        return {node: part for part in self.parts for node in part.nodes}

    def close(self) -> None:
        while self.parts:
            self.parts.pop().close()
        self.clock.close()


class Machine:
    """A powered-up virtual machine in this process. `close` powers it down."""

    def __init__(self, preset: PresetInfo) -> None:
        """Raises DeviceError where a driver, with the preset's policy, does not drive its device."""
        npu = next((part for part in preset.parts if isinstance(part, NpuPreset)), None)
        self.info = MachineInfo(
            preset.name,
            npu.accelerator if npu else None,
            npu.vela_system_config if npu else None,
            npu.vela_memory_mode if npu else None,
            preset.policy,
        )
        self._parts = Parts(preset, split=False)
        self.nodes = tuple(self._parts.nodes)
        self._watchers: list[Callable[[Uevent], None]] = []

    @property
    def parts(self) -> Sequence[Part]:
        return self._parts.parts

    @property
    def clock(self) -> VirtualClock:
        return self._parts.clock

    def open_node(self, path: str | None = None, flags: int = os.O_RDWR) -> Node:
        """Open a device node of this machine, the first unless told, as open(2) would. Raises DeviceError,
        OSError."""
        node = next((node for node in self.nodes if path in (None, node.path)), None)
        if node is None:
            paths = ", ".join(node.path for node in self.nodes)
            raise DeviceError(f"machine {self.info.name} has no node {path}: it has {paths}")
        return Node(self._parts.open(node, flags, own_caller()), flags)

    def part_of(self, path: str) -> Part:
        """The part with this node. Raises DeviceError where there is none."""
        for part in self.parts:
            if any(node.path == path for node in part.nodes):
                return part
        raise DeviceError(f"machine {self.info.name} has no node {path}")

    def debugfs(self) -> dict[str, dict[str, str]]:
        """The files that debugfs has of each DRM node, by path and name, as they read now: part of the
        control channel."""
        devices = {part.nodes[0].path: getattr(part, "device", None) for part in self.parts}
        return {path: debugfs.files(item) for path, item in devices.items() if isinstance(item, DrmDevice)}

    def watch_uevents(self, watcher: Callable[[Uevent], None]) -> None:
        """Have `watcher` called with the events of devices that come and go, as `uevent.subscribe` says,
        until the machine is closed: part of the control channel."""
        uevent.subscribe(watcher)
        self._watchers.append(watcher)

    def watch_faults(self, watcher: FaultWatcher) -> None:
        """Have `watcher` told why parts of a device stop: part of the control channel."""
        self._parts.watch_faults(watcher)

    # What a machine with one NPU is used by

    @property
    def control(self) -> Control:
        """The control channel of its NPU. Raises DeviceError where it has none."""
        return self._npu_part.control

    @property
    def npu(self) -> VirtualNpu:
        return self._npu_part.npu

    @property
    def sram(self) -> MemoryPool | None:
        return self._npu_part.sram

    def inject(self, injection: Injection) -> None:
        """Order a fault of the next job: part of the control channel."""
        self._npu_part.inject(injection)

    def watch(self, watcher: Callable[[OperationOutput], None] | None) -> None:
        """Have `watcher` called, on the NPU's thread, with what each operation writes, in order; None
        ends it. What it raises fails the job. Part of the control channel."""
        self._npu_part.watch(watcher)

    @functools.cached_property
    def _npu_part(self) -> NpuPart:
        from npubox.machines.npu_part import NpuPart

        for part in self.parts:
            if isinstance(part, NpuPart):
                return part
        raise DeviceError(f"machine {self.info.name} has no NPU behind mainline's driver")

    def close(self) -> None:
        """Power down. Open nodes answer ENODEV from then on; a job in progress is abandoned."""
        self._parts.close()
        while self._watchers:
            uevent.unsubscribe(self._watchers.pop())

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
