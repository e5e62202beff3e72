# SPDX-License-Identifier: Apache-2.0
"""`[[refaccel]]`: the reference driver, which has no hardware, and beside it the one other thing that it is
known with on Linux: a module parameter that pulls its device out."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from npubox.core.nodes import NodeInfo, accel_node, file_node
from npubox.machines.part import Board, Spawn
from npubox.uapi.refaccel import DRIVER_NAME

if TYPE_CHECKING:
    from npubox.machines.refaccel_part import RefAccelPart

ACT = f"/sys/module/{DRIVER_NAME}/parameters/act"


@dataclass(frozen=True)
class RefAccelPreset:
    """Its node and its platform device."""

    compiled: ClassVar[bool] = False

    node: str
    name: str

    @property
    def nodes(self) -> Sequence[NodeInfo]:
        return accel_node(self.node, self.name, (), DRIVER_NAME), file_node(ACT)

    def plug(self, board: Board) -> RefAccelPart:
        from npubox.machines.refaccel_part import RefAccelPart

        return RefAccelPart(self)

    def plug_split(self, board: Board, spawn: Spawn) -> RefAccelPart:
        return self.plug(board)

    def run_device(self, channel: socket.socket) -> None:
        raise AssertionError("no process is started for the reference driver's device")


def parse(entry: dict[str, Any], machine: dict[str, Any]) -> RefAccelPreset:
    return RefAccelPreset(entry["node"], entry["name"])
