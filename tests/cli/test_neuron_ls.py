# SPDX-License-Identifier: Apache-2.0
"""`npubox neuron-ls` answers as the vendor's tool of that name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from npubox.cli.main import _run
from npubox.cli.neuron_table import table
from npubox.client.neuron.listing import Listed, NeuronProcess


def ls(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert _run(["neuron-ls", *options]) == 0
    return capsys.readouterr().out


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    output = ls(capsys, "-j", "-m", "inf1.6xlarge")
    devices: list[dict[str, Any]] = json.loads(output)
    assert output.startswith("[\n    {\n        ")
    assert not output.endswith("\n")
    assert [device["connected_to"] for device in devices] == [[1], [2, 0], [3, 1], [2]]
    assert devices[2] == {
        "neuron_device": 2,
        "bdf": "0000:00:1e.0",
        "connected_to": [3, 1],
        "nc_count": 4,
        "memory_size": 8 << 30,
        "neuroncore_ids": [8, 9, 10, 11],
        "neuron_processes": [],
    }


def test_a_single_device_is_connected_to_null(capsys: pytest.CaptureFixture[str]) -> None:
    (device,) = json.loads(ls(capsys, "--json-output", "--machine", "inf1.xlarge"))
    assert device["connected_to"] is None


def test_table_and_topology(capsys: pytest.CaptureFixture[str]) -> None:
    output = ls(capsys, "-t", "-m", "inf1.6xlarge")
    assert "| 1      | 4      | 8 GB   | 2, 0      | 0000:00:1d.0 |" in output
    assert "[ 0 ]───[ 1 ]───[ 2 ]───[ 3 ]" in output
    assert "PID" not in output


def test_processes_have_rows_of_their_own() -> None:
    processes = (NeuronProcess(23, "app " + "x" * 60, "2.0.0"), NeuronProcess(24, "other", ""))
    device = Listed(0, "0000:00:1c.0", 4, 8 << 30, (1,), 0, processes)
    rows = table([device], wide=False).splitlines()
    assert "| 23  | app " + "x" * 33 + "... | 2.0.0   |" in rows[4]
    assert rows[5].startswith("|        |        |        |           |              | 24  | other ")
    assert "x" * 60 in table([device], wide=True)


def test_a_machine_without_devices(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["neuron-ls", "-m", "imx93"]) == 2
    assert "imx93 has no NeuronDevice" in capsys.readouterr().err
