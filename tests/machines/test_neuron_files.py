# SPDX-License-Identifier: Apache-2.0
"""Machine files with Inferentia chips: what is wrong in one is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from npubox.errors import DeviceError
from npubox.machines.neuron import NeuronPreset
from npubox.machines.preset import find_preset

GOOD = {"device": "0x7064", "revision": "255", "slot": "0x1c"}


def written(directory: Path, **keys: str) -> str:
    file = directory / "machine.toml"
    lines = "".join(f"{key} = {value}\n" for key, value in keys.items())
    file.write_text(f'description = "a machine"\npolicy = "strict"\n[[neuron]]\n{lines}')
    return str(file)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"isolated": "true"}, "has no isolated: give chips, device"),
        ({"isolate": "1"}, "isolate of .* is true or false, not 1"),
        ({"chips": "0"}, "chips of .* is 1 to 64, not 0"),
        ({"chips": "true"}, "chips of .* is 1 to 64, not True"),
        ({"device": "0x7164"}, "device of .* is 0x7064 to 0x7067, not 0x7164"),
        ({"revision": "256"}, "revision of .* is 0 to 255"),
        ({"slot": "32"}, "slot of .* is 0 to 31"),
    ],
)
def test_what_cannot_be(tmp_path: Path, keys: dict[str, str], reason: str) -> None:
    with pytest.raises(DeviceError, match=reason):
        find_preset(written(tmp_path, **GOOD | keys))


def test_what_lacks(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="it has no revision"):
        find_preset(written(tmp_path, device="0x7064", slot="1"))


@pytest.mark.parametrize(
    ("line", "reason"),
    [("", "needs a policy: give"), ('policy = "mainline"', "has no policy 'mainline': give")],
)
def test_the_policy(tmp_path: Path, line: str, reason: str) -> None:
    """Told before a program starts, not as a node that does not open."""
    file = tmp_path / "machine.toml"
    chips = "".join(f"{key} = {value}\n" for key, value in GOOD.items())
    file.write_text(f'description = "a machine"\n{line}\n[[neuron]]\n{chips}')
    with pytest.raises(DeviceError, match=reason):
        find_preset(str(file))


def test_a_bus_that_is_full(tmp_path: Path) -> None:
    (chips,) = find_preset(written(tmp_path, **GOOD, chips="64")).parts
    assert isinstance(chips, NeuronPreset)
    addresses = [chips.address(index) for index in (0, 3, 4, 63)]
    assert addresses == ["0000:00:1c.0", "0000:00:1f.0", "0000:01:00.0", "0000:02:1b.0"]
