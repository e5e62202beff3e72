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
from npubox.hw.neuron import pci
from npubox.machines.part import Board, Part, Spawn
from npubox.uapi.neuron import NEURON

if TYPE_CHECKING:
    from npubox.machines.neuron_part import NeuronPart

MAJOR = 507  # Linux gives it out dynamically
CLASS = "neuron_device"
TOOLS = (("/opt/aws/neuron/bin/neuron-ls", "neuron-ls"),)
READY = 1
MOST_CHIPS = 64
SLOTS = 32
"""Of a PCI bus."""
RANGES = {
    "chips": range(1, MOST_CHIPS + 1),
    "device": range(pci.DEVICE_IDS[0], pci.DEVICE_IDS[-1] + 1),
    "revision": range(256),
    "slot": range(SLOTS),
}
SWITCHES = ("isolate", "apart")


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
        """PCI address of a chip; where a bus is full the next one follows."""
        bus, slot = divmod(self.slot + index, SLOTS)
        return f"0000:{bus:02x}:{slot:02x}.0"

    def plug(self, board: Board) -> NeuronPart:
        from npubox.machines.neuron_part import NeuronPart

        return NeuronPart(self, find_policy(board.policy), board.clock)

    def plug_split(self, board: Board, spawn: Spawn) -> Part:
        """Here unless `apart`: chips move data on threads of their own, without the interpreter's lock."""
        if not self.apart:
            return self.plug(board)
        from npubox.machines.neuron_apart import ApartNeuronPart

        return ApartNeuronPart(self, find_policy(board.policy), spawn)

    def run_device(self, channel: socket.socket) -> None:
        from npubox.machines.neuron_apart import run_chips

        run_chips(self, channel)

    def _node(self, index: int) -> NodeInfo:
        attributes = tuple(files(READY, self.neighbours(index)).items())
        node = class_node(
            f"/dev/neuron{index}", MAJOR, index, CLASS, ord(NEURON), driver="neuron", attributes=attributes
        )
        return replace(node, class_attributes=tuple(CLASS_ATTRIBUTES.items()), tools=TOOLS)


def find_policy(name: str | None) -> Policy:
    """DeviceError for one that this driver does not have."""
    for policy in Policy:
        if policy == name:
            return policy
    known = " or ".join(f'"{policy}"' for policy in Policy)
    missing = "needs a policy" if name is None else f"has no policy {name!r}"
    raise DeviceError(f"the Neuron driver {missing}: give {known}")


def parse(entry: dict[str, Any], machine: dict[str, Any]) -> NeuronPreset:
    """One [[neuron]] of a machine's table. Raises DeviceError for what cannot be, KeyError for what lacks."""
    find_policy(machine.get("policy"))
    for key, value in entry.items():
        _check(key, value)
    return NeuronPreset(
        entry.get("chips", 1),
        entry["device"],
        entry["revision"],
        entry["slot"],
        entry.get("isolate", False),
        entry.get("apart", False),
    )


def _check(key: str, value: Any) -> None:
    if key in SWITCHES:
        if not isinstance(value, bool):
            raise DeviceError(f"{key} of [[neuron]] is true or false, not {value!r}")
    elif key not in RANGES:
        raise DeviceError(f"[[neuron]] has no {key}: give {', '.join((*RANGES, *SWITCHES))}")
    elif type(value) is not int or value not in RANGES[key]:
        tell = hex if key == "device" and type(value) is int else repr
        raise DeviceError(
            f"{key} of [[neuron]] is {tell(RANGES[key][0])} to {tell(RANGES[key][-1])}, not {tell(value)}"
        )
