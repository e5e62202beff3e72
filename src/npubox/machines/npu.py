# SPDX-License-Identifier: Apache-2.0
"""`[[npu]]`: an Ethos-U NPU behind mainline's `ethosu` accel driver, as a preset declares it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from npubox.core.nodes import NodeInfo, accel_node
from npubox.machines.part import Board, Spawn
from npubox.uapi.ethosu_accel import DRIVER_NAME

if TYPE_CHECKING:
    from npubox.machines.npu_part import NpuPart
    from npubox.machines.npu_split import SplitNpuPart


@dataclass(frozen=True)
class MemoryRange:
    """Memory as the NPU addresses it, in bytes."""

    address: int
    size: int


@dataclass(frozen=True)
class NpuPreset:
    """One NPU: its node, its name in the device tree, its clock in Hz, what Vela calls its system, and the
    machine's memory."""

    compiled: ClassVar[bool] = True

    node: str
    name: str
    compatible: tuple[str, ...]
    accelerator: str
    frequency: int
    vela_system_config: str | None
    vela_memory_mode: str | None
    dram: MemoryRange
    sram: MemoryRange | None

    @property
    def nodes(self) -> Sequence[NodeInfo]:
        return (accel_node(self.node, self.name, self.compatible, DRIVER_NAME),)

    def plug(self, board: Board) -> NpuPart:
        """Raises DeviceError where the driver, with the board's policy, does not drive this NPU."""
        from npubox.machines.npu_part import NpuPart

        return NpuPart(self, board)

    def plug_split(self, board: Board, spawn: Spawn) -> SplitNpuPart:
        from npubox.machines.npu_split import SplitNpuPart

        return SplitNpuPart(self, board, spawn)

    def run_device(self, channel: socket.socket) -> None:
        from npubox.machines.npu_device import run_npu

        run_npu(self, channel)


def parse(entry: dict[str, Any], machine: dict[str, Any]) -> NpuPreset:
    """One [[npu]] of a machine's table, which has [memory]."""
    memory = machine["memory"]
    return NpuPreset(
        node=entry["node"],
        name=entry["name"],
        compatible=tuple(entry["compatible"]),
        accelerator=entry["accelerator"],
        frequency=entry["frequency"],
        vela_system_config=entry.get("vela_system_config"),
        vela_memory_mode=entry.get("vela_memory_mode"),
        dram=MemoryRange(**memory["dram"]),
        sram=MemoryRange(**memory["sram"]) if "sram" in memory else None,
    )
