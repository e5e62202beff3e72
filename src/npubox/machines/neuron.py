# SPDX-License-Identifier: Apache-2.0
"""`[[neuron]]`: Inferentia chips in a chain, behind the Neuron driver, as a preset declares them."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from npubox.core.nodes import NodeInfo, class_node
from npubox.drivers.misc.neuron.policy import Policy
from npubox.drivers.misc.neuron.sysfs import CLASS_ATTRIBUTES, files
from npubox.errors import DeviceError
from npubox.machines.part import Board, Part, Spawn
from npubox.uapi.neuron import NEURON

if TYPE_CHECKING:
    from npubox.machines.neuron_part import NeuronPart

MAJOR = 507  # Linux gives it out dynamically
CLASS = "neuron_device"
TOOLS = (("/opt/aws/neuron/bin/neuron-ls", "neuron-ls"),)
READY = 1
MOST_CHIPS = 64


@dataclass(frozen=True)
class NeuronPreset:
    """`chips` chips of one PCI device id and revision, the first in PCI slot `slot`, each linked to the next.
    `isolate` keeps processes apart; `apart` gives the chips of a served machine a process of their own."""

    compiled: ClassVar[bool] = False

    chips: int
    device: int
    revision: int
    slot: int
    isolate: bool
    apart: bool

    @cached_property
    def nodes(self) -> Sequence[NodeInfo]:
        return tuple(self._node(index) for index in range(self.chips))

    def neighbours(self, index: int) -> list[int]:
        """East, then west."""
        return [other for other in (index + 1, index - 1) if 0 <= other < self.chips]

    def address(self, index: int) -> str:
        """PCI address of a chip."""
        return f"0000:00:{self.slot + index:02x}.0"

    def plug(self, board: Board) -> NeuronPart:
        from npubox.machines.neuron_part import NeuronPart

        return NeuronPart(self, policy_of(board), board.clock)

    def plug_split(self, board: Board, spawn: Spawn) -> Part:
        """Here unless `apart`: chips move data on threads of their own, without the interpreter's lock."""
        if not self.apart:
            return self.plug(board)
        from npubox.machines.neuron_apart import ApartNeuronPart

        return ApartNeuronPart(self, policy_of(board), spawn)

    def run_device(self, channel: socket.socket) -> None:
        from npubox.machines.neuron_apart import run_chips

        run_chips(self, channel)

    def _node(self, index: int) -> NodeInfo:
        attributes = tuple(files(READY, self.neighbours(index)).items())
        node = class_node(
            f"/dev/neuron{index}", MAJOR, index, CLASS, ord(NEURON), driver="neuron", attributes=attributes
        )
        return replace(node, class_attributes=tuple(CLASS_ATTRIBUTES.items()), tools=TOOLS)


def policy_of(board: Board) -> Policy:
    """The board's policy; DeviceError for one that this driver does not have."""
    try:
        return Policy(board.policy)
    except ValueError:
        known = " or ".join(f'"{policy}"' for policy in Policy)
        raise DeviceError(f"the Neuron driver has no policy {board.policy!r}: give {known}") from None


def parse(entry: dict[str, Any], machine: dict[str, Any]) -> NeuronPreset:
    """One [[neuron]] of a machine's table."""
    chips = entry.get("chips", 1)
    if not 1 <= chips <= MOST_CHIPS:
        raise DeviceError(f"[[neuron]] has 1 to {MOST_CHIPS} chips, not {chips}")
    return NeuronPreset(
        chips,
        entry["device"],
        entry["revision"],
        entry["slot"],
        entry.get("isolate", False),
        entry.get("apart", False),
    )
