# SPDX-License-Identifier: Apache-2.0
"""Every number, size and offset of /dev/neuron<N>, against the tables of the facts."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest

from npubox.uapi import neuron, neuron_structs

FACTS = Path(__file__).with_name("neuron_facts.txt").read_text("ascii").splitlines()
TYPES = {"u8": 1, "s8": 1, "u16": 2, "u32": 4, "s32": 4, "u64": 8, "ptr": 8}
STRUCTS: dict[str, type[ctypes.Structure]] = {
    str(value.__doc__).split()[1].rstrip(".:").removeprefix("neuron_ioctl_"): value
    for value in vars(neuron_structs).values()
    if isinstance(value, type(ctypes.Structure)) and str(value.__doc__).startswith("struct ")
}


def rows(kind: str) -> list[list[str]]:
    return [line.split(" ", 3)[1:] for line in FACTS if line.startswith(kind + " ")]


def test_ioctl_numbers() -> None:
    declared = {item.name.removeprefix("NEURON_IOCTL_"): item.number for item in neuron.IOCTLS}
    assert declared == {name: int(number, 16) for name, number, _ in rows("ioctl")}
    assert len(declared) == 94


@pytest.mark.parametrize(("name", "size", "members"), rows("struct"), ids=lambda value: value[:40])
def test_struct_layout(name: str, size: str, members: str) -> None:
    struct = STRUCTS[name]
    declared = {field[0]: getattr(struct, field[0]) for field in struct._fields_}
    expected = re.findall(r"(\d+) (\w+) (\w+)(?:\[(\w+)\])?", members.replace("(48 each)", ""))
    assert ctypes.sizeof(struct) == int(size)
    assert list(declared) == [member for _, member, _, _ in expected]
    for offset, member, kind, count in expected:
        assert declared[member].offset == int(offset), member
        if kind in TYPES:
            assert declared[member].size == TYPES[kind] * int(count or 1), member


def test_arguments_are_the_structs_of_the_facts() -> None:
    by_name = {item.name.removeprefix("NEURON_IOCTL_"): item for item in neuron.IOCTLS}
    for name, _, argument in rows("ioctl"):
        known = STRUCTS.get(argument.strip("()").split(" ")[0])
        if known is not None:
            assert by_name[name].struct is known, name
