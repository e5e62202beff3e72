# SPDX-License-Identifier: Apache-2.0
"""`[[subsystem]]`: an Ethos-U behind a Cortex-M, as a preset declares it.

`reg`, `memory-region` and `dma-ranges` are the device tree's own: addresses of the CPU, and `[device, cpu,
size]` to translate them. `mboxes` and `mbox-names` name the mailbox of `npubox.hw.ethosu.mailbox`. The rest
is what the firmware was built with, at the subsystem's addresses. Source: the project's facts
(ethosu-linux.md §2.7)."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, ClassVar

from npubox.bus.port import DmaRange
from npubox.core.nodes import NodeInfo, class_node
from npubox.errors import DeviceError
from npubox.machines.part import Board, Spawn
from npubox.uapi.ethosu_linux import TYPE

if TYPE_CHECKING:
    from npubox.machines.subsystem_part import SplitSubsystemPart, SubsystemPart

QUEUES = ("in_queue", "out_queue")
MAILBOXES = {"tx", "rx"}
MAJOR = 511


@dataclass(frozen=True)
class Extent:
    """Memory, in bytes."""

    address: int
    size: int


@dataclass(frozen=True)
class SubsystemPreset:
    """One subsystem: its node, its name and properties in the device tree, its `npus` identical NPUs at
    `frequency` Hz, and its firmware. `networks` names .tflite files that are linked into that; `incoherent`
    says that it does not see the host's caches, `short_header` that the rings have the header of before
    2022-06-28, which NXP's still have."""

    compiled: ClassVar[bool] = True

    node: str
    name: str
    compatible: tuple[str, ...]
    reg: dict[str, Extent]
    memory_region: Extent
    dma_ranges: tuple[DmaRange, ...]
    accelerator: str
    npus: int
    frequency: int
    arena: Extent
    fast_memory: Extent | None
    flash: int
    networks: tuple[str, ...]
    incoherent: bool
    short_header: bool
    vela_system_config: str | None
    vela_memory_mode: str | None

    @property
    def nodes(self) -> Sequence[NodeInfo]:
        minor = int(os.path.basename(self.node).removeprefix("ethosu"))
        return (
            class_node(
                self.node,
                MAJOR,
                minor,
                "ethosu",
                ord(TYPE),
                parent=self.name,
                compatible=self.compatible,
                driver="ethosu",
            ),
        )

    def plug(self, board: Board) -> SubsystemPart:
        """Raises DeviceError for a policy that the driver does not have."""
        from npubox.machines.subsystem_part import SubsystemPart

        return SubsystemPart(self, board)

    def plug_split(self, board: Board, spawn: Spawn) -> SplitSubsystemPart:
        from npubox.machines.subsystem_part import SplitSubsystemPart

        return SplitSubsystemPart(self, board, spawn)

    def run_device(self, channel: socket.socket) -> None:
        from npubox.machines.subsystem_device import run_subsystem

        run_subsystem(self, channel)

    def network_files(self) -> tuple[bytes, ...]:
        """The content of the firmware's own networks."""
        directory = resources.files("npubox.machines").joinpath("networks")
        return tuple(directory.joinpath(name).read_bytes() for name in self.networks)


def parse(entry: dict[str, Any], machine: dict[str, Any]) -> SubsystemPreset:
    """One [[subsystem]] of a machine's table. Raises DeviceError for a mailbox that there is not."""
    if set(entry["mbox-names"]) != MAILBOXES or len(entry["mboxes"]) != len(MAILBOXES):
        raise DeviceError(f"{entry['name']} needs mboxes called tx and rx, not {entry['mbox-names']}")
    return SubsystemPreset(
        node=entry["node"],
        name=entry["name"],
        compatible=tuple(entry["compatible"]),
        reg={queue: Extent(**entry["reg"][queue]) for queue in QUEUES},
        memory_region=Extent(**entry["memory-region"]),
        dma_ranges=tuple(DmaRange(*values) for values in entry["dma-ranges"]),
        accelerator=entry["accelerator"],
        npus=entry["npus"],
        frequency=entry["frequency"],
        arena=Extent(**entry["arena"]),
        fast_memory=Extent(**entry["fast_memory"]) if "fast_memory" in entry else None,
        flash=entry["flash"],
        networks=tuple(entry.get("networks", ())),
        incoherent=entry.get("incoherent", False),
        short_header=entry.get("short_queue_header", False),
        vela_system_config=entry.get("vela_system_config"),
        vela_memory_mode=entry.get("vela_memory_mode"),
    )
