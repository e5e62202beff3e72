# SPDX-License-Identifier: Apache-2.0
"""`[[sw_sync]]`: timelines that programs advance by hand, a debugging aid of Linux."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from npubox.core.nodes import NodeInfo, sw_sync_nodes
from npubox.machines.part import Board, Spawn

if TYPE_CHECKING:
    from npubox.machines.sw_sync_part import SwSyncPart


@dataclass(frozen=True)
class SwSyncPreset:
    """Nothing to declare."""

    compiled: ClassVar[bool] = False

    @property
    def nodes(self) -> Sequence[NodeInfo]:
        return sw_sync_nodes()

    def plug(self, board: Board) -> SwSyncPart:
        from npubox.machines.sw_sync_part import SwSyncPart

        return SwSyncPart()

    def plug_split(self, board: Board, spawn: Spawn) -> SwSyncPart:
        return self.plug(board)

    def run_device(self, channel: socket.socket) -> None:
        raise AssertionError("no process is started for sw_sync")


def parse(entry: dict[str, Any], machine: dict[str, Any]) -> SwSyncPreset:
    return SwSyncPreset()
