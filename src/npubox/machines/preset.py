# SPDX-License-Identifier: Apache-2.0
"""Presets: TOML files that say what a machine is made of."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from npubox.errors import DeviceError


@dataclass(frozen=True)
class MemoryRange:
    """Memory as the NPU addresses it, in bytes."""

    address: int
    size: int


@dataclass(frozen=True)
class NpuPreset:
    """One NPU: its node, its name in the device tree, its clock in Hz, what Vela calls its system."""

    node: str
    name: str
    compatible: tuple[str, ...]
    accelerator: str
    frequency: int
    vela_system_config: str | None
    vela_memory_mode: str | None


@dataclass(frozen=True)
class PresetInfo:
    """A machine that can be powered up. `policy` is what its driver refuses: what "mainline" Linux does, or
    as little as the "hardware". `devices` are the short names that it is opened by."""

    name: str
    description: str
    dram: MemoryRange
    sram: MemoryRange | None
    npu: NpuPreset
    policy: str
    devices: tuple[str, ...]

    @property
    def accelerator(self) -> str:
        return self.npu.accelerator


def _parse(name: str, table: dict[str, Any]) -> PresetInfo:
    (npu,) = table["npu"]
    memory = table["memory"]
    return PresetInfo(
        name=name,
        description=table["description"],
        dram=MemoryRange(**memory["dram"]),
        sram=MemoryRange(**memory["sram"]) if "sram" in memory else None,
        npu=NpuPreset(
            node=npu["node"],
            name=npu["name"],
            compatible=tuple(npu["compatible"]),
            accelerator=npu["accelerator"],
            frequency=npu["frequency"],
            vela_system_config=npu.get("vela_system_config"),
            vela_memory_mode=npu.get("vela_memory_mode"),
        ),
        policy=table.get("policy", "mainline"),
        devices=tuple(table.get("devices", ())),
    )


@cache
def presets() -> tuple[PresetInfo, ...]:
    """Every machine that ships with npubox, by name."""
    found = []
    for file in resources.files("npubox.machines").joinpath("presets").iterdir():
        if file.name.endswith(".toml"):
            found.append(_parse(file.name.removesuffix(".toml"), tomllib.loads(file.read_text("utf-8"))))
    return tuple(sorted(found, key=lambda preset: preset.name))


def find_preset(name: str) -> PresetInfo:
    """The preset of that name, or the first with a device of that name. Raises DeviceError."""
    for preset in presets():
        if preset.name == name or name in preset.devices:
            return preset
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
    return family, int(macs)
