# SPDX-License-Identifier: Apache-2.0
"""Presets: TOML files that say what a machine is made of."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from npubox.core.nodes import NodeInfo
from npubox.errors import DeviceError
from npubox.machines.npu import NpuPreset
from npubox.machines.part import PartPreset

KINDS = {
    "npu": "npubox.machines.npu",
    "subsystem": "npubox.machines.subsystem",
    "neuron": "npubox.machines.neuron",
    "refaccel": "npubox.machines.refaccel",
    "sw_sync": "npubox.machines.sw_sync",
}
"""The module of each kind of part, by the name of its tables; it has `parse(table, machine's table)`."""


@dataclass(frozen=True)
class PresetInfo:
    """A machine that can be powered up. `policy` is what its drivers refuse: what "mainline" Linux does, or
    as little as the "hardware". `devices` are the short names that it is opened by."""

    name: str
    description: str
    parts: tuple[PartPreset, ...]
    policy: str
    devices: tuple[str, ...]

    @property
    def nodes(self) -> tuple[NodeInfo, ...]:
        return tuple(node for part in self.parts for node in part.nodes)

    @property
    def compiled(self) -> bool:
        """Whether powering it up needs the devices' compiled kernels."""
        return any(part.compiled for part in self.parts)

    @property
    def accelerator(self) -> str | None:
        """The first NPU's name as Vela takes it; None where no NPU is behind mainline's driver."""
        return next((part.accelerator for part in self.parts if isinstance(part, NpuPreset)), None)


def _parse(name: str, table: dict[str, Any]) -> PresetInfo:
    parts = [
        import_module(module).parse(entry, table)
        for kind, module in KINDS.items()
        for entry in table.get(kind, ())
    ]
    return PresetInfo(
        name=name,
        description=table["description"],
        parts=tuple(parts),
        policy=table.get("policy", "mainline"),
        devices=tuple(table.get("devices", ())),
    )


def _read(path: str) -> PresetInfo:
    try:
        with open(path, "rb") as file:
            return _parse(path, tomllib.load(file))
    except KeyError as error:
        raise DeviceError(
            f"{path} is no machine file: it has no {error.args[0]}; docs/architecture.md shows one"
        ) from error
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise DeviceError(f"{path} is no machine file: {error}; docs/architecture.md shows one") from error


@cache
def _tables() -> dict[str, dict[str, Any]]:
    files = sorted((Path(__file__).parent / "presets").glob("*.toml"))
    return {file.stem: tomllib.loads(file.read_text("utf-8")) for file in files}


@cache
def _shipped(name: str) -> PresetInfo:
    """One at a time: a kind of part is imported only for a machine that has it."""
    return _parse(name, _tables()[name])


def presets() -> tuple[PresetInfo, ...]:
    """Every machine that ships with npubox, by name."""
    return tuple(map(_shipped, _tables()))


def find_preset(name: str) -> PresetInfo:
    """The preset of that name, or the first with a device of that name, or a machine file of one's own by its
    path. Raises DeviceError."""
    if name.endswith(".toml"):
        return _read(name)
    for shipped, table in _tables().items():
        if name == shipped or name in table.get("devices", ()):
            return _shipped(shipped)
    machines = [preset.name for preset in presets()]
    devices = sorted((name for preset in presets() for name in preset.devices), key=_by_size)
    near = difflib.get_close_matches(name.lower(), [*devices, *machines], n=1)
    raise DeviceError(
        f"there is no device {name!r}{f', did you mean {near[0]}' if near else ''}: use a device"
        f" ({', '.join(devices)}), a machine ({', '.join(machines)}) or the path of a node such as"
        " /dev/accel/accel0"
    )


def _by_size(device: str) -> tuple[str, int]:
    """`ethos-u55-32` comes before `ethos-u55-128`."""
    family, _, macs = device.rpartition("-")
    return (family, int(macs)) if macs.isdecimal() else (device, 0)
