# SPDX-License-Identifier: Apache-2.0
"""`Device.dump_layers`: what each operation wrote, held against the plain interpreter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import npubox
from npubox.client import Device
from npubox.devices.ethosu_npu.run import Injection
from npubox.formats.tflite import read_network
from npubox.hw.ethosu.commands import Cmd0
from tests.client.fake_ethosu import FakeNode
from tests.plain.interpreter import run
from tests.plain.memory import OFM, Memory, addresses, precision
from tests.plain.network import PlainNetwork
from tests.plain.registers import Config, Registers

DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "digits.tflite"
IMAGE = np.arange(64, dtype=np.int8).reshape(1, 8, 8, 1)
STOP = 0xFFFF_0000


def layers(directory: Path) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads((directory / "layers.json").read_text())["layers"]
    files = {layer["file"] for layer in listed}
    assert {path.name for path in directory.iterdir()} == {"layers.json", *files}
    return listed


def ofm_after(plain: PlainNetwork, end: int) -> np.ndarray:
    """What the plain interpreter finds in the OFM of the operation that ends at byte `end` of the stream."""
    words = plain.npu.stream.words[:end]
    (index,) = plain.network.inputs
    start = plain.network.tensors[index].arena_offset
    assert start is not None
    plain.regions[1][start : start + IMAGE.nbytes] = IMAGE.tobytes()
    run(words + STOP.to_bytes(4, "little"), plain.regions, plain.npu.stream.config, plain.lut)
    registers = Registers(Config(plain.npu.stream.config))
    at = 0
    while at < end:
        word = int.from_bytes(words[at : at + 4], "little")
        code = word & 0x3FF
        if word & 1 << 14:
            registers.cmd1[code] = (word >> 16, int.from_bytes(words[at + 4 : at + 8], "little"))
            at += 4
        elif code >= Cmd0.IFM_PAD_TOP:
            registers.cmd0[code] = word >> 16
        at += 4
    shape = tuple(registers.m1(code) for code in (Cmd0.OFM_HEIGHT_M1, Cmd0.OFM_WIDTH_M1, Cmd0.OFM_DEPTH_M1))
    where = addresses(registers, OFM, (shape[0], shape[1], shape[2]))
    kind = precision(registers, OFM).dtype
    return Memory(plain.regions).read(registers.region(Cmd0.OFM_REGION), where, kind).astype(kind)


@pytest.mark.parametrize("name", ["ethos-u65-256", "ethos-u55-64"])
def test_each_operation(name: str, tmp_path: Path) -> None:
    with npubox.open(name) as device, device.load(DIGITS) as network:
        with device.dump_layers(tmp_path / "new" / "dump"):
            scores = np.asarray(network(IMAGE))
        network(IMAGE)  # nothing is written any more
        plain = PlainNetwork(read_network(device.compile(DIGITS).content))
    listed = layers(tmp_path / "new" / "dump")
    assert len(listed) > 20
    assert listed[0]["file"] == f"000_OP_CONV_{listed[0]['offset']:#x}.npy"
    assert (listed[0]["shape"], listed[0]["dtype"], listed[0]["zero_point"]) == ([8, 8, 16], "int8", -128)
    assert [layer["offset"] for layer in listed] == sorted(layer["offset"] for layer in listed)
    for layer in listed:
        values = np.load(tmp_path / "new" / "dump" / layer["file"])
        assert ([*values.shape], str(values.dtype)) == (layer["shape"], layer["dtype"])
        np.testing.assert_array_equal(values, ofm_after(plain, layer["offset"] + 4), layer["file"])
    np.testing.assert_array_equal(values.reshape(-1), scores[0])


def test_a_failed_job_shows_what_it_did(tmp_path: Path) -> None:
    """And jobs are told apart by their number."""
    with npubox.open("imx93") as device, device.load(DIGITS) as network:
        assert device.machine is not None
        with device.dump_layers(tmp_path):
            network(IMAGE)
            before = len(list(tmp_path.iterdir()))
            device.machine.inject(Injection.BUS_ERROR)
            with pytest.raises(npubox.JobFailed):
                network(IMAGE)
            network(IMAGE)
    listed = layers(tmp_path)
    assert [layer["job"] for layer in listed] == [0] * before + [2] * before


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with npubox.open("imx93") as device, device.load(DIGITS) as network:
        with pytest.raises(FileExistsError), device.dump_layers(tmp_path / "file"):
            pass
        with pytest.raises(FileNotFoundError), device.dump_layers(tmp_path / "gone"):  # noqa: PT012
            (tmp_path / "gone").rmdir()
            network(IMAGE)
        network(IMAGE)


def test_real_hardware_does_not_show_them(
    node: FakeNode, open_fake: Callable[..., Device], tmp_path: Path
) -> None:
    with (
        open_fake(node, real=True) as device,
        pytest.raises(npubox.DeviceError, match="real hardware"),
        device.dump_layers(tmp_path / "dump"),
    ):
        pass
    assert not (tmp_path / "dump").exists()
