# SPDX-License-Identifier: Apache-2.0
"""`npubox inference-runner`: Arm's options, Arm's lines, the right bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Npubox
from tests.networks import compiled_by_vela
from tests.vectors import DIGITS, digits_vectors

LINES = """Send Ping
Send version request
Send capabilities request
Capabilities:
\taccelerator: ethos-u65-256
Create network
Create inference
Wait for inferences
Wait for inference
Inference status: ok
OFM size: 10
PMUs : [ 7368 0 0 0 0 0 0 0 ]
Cycle counter: 7368""".splitlines()


def test_a_run(npubox: Npubox, tmp_path: Path) -> None:
    first, second = digits_vectors(2)
    network = tmp_path / "digits.tflite"
    network.write_bytes(compiled_by_vela((DIGITS / "digits.tflite").read_bytes(), "ethos-u65-256").content)
    for number, vector in enumerate((first, second)):
        (tmp_path / f"{number}.ifm").write_bytes(vector.inputs[0].tobytes())
    files = ["-n", network, "-i", tmp_path / "0.ifm", "-i", tmp_path / "1.ifm", "-o", tmp_path / "ofm"]
    done = npubox("inference-runner", *files, "-P", "0", "1", "-C", "-p", "-t", "60000000000")
    assert done.status == 0, done.err
    printed = iter(done.out.splitlines())
    assert [line for line in LINES if line in printed] == LINES, "Arm's lines, in this order"
    for number, vector in enumerate((first, second)):
        expected = vector.outputs[0].tobytes()
        assert (tmp_path / f"ofm.{number}").read_bytes() == expected
        assert expected.hex(" ") in done.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "(--network) or by its number (--index)"),
        (("--index", "0", "-P", "8", "1"), "counters from 0 to 7"),
        (("--index", "0", "-P", "1"), "give COUNTER EVENT"),
        (("--index", "0", "-d", "nothing"), "there is no device 'nothing'"),
    ],
)
def test_bad_input(npubox: Npubox, options: tuple[str, ...], message: str) -> None:
    done = npubox("inference-runner", *options)
    assert (done.status, message in done.err) == (2, True), done.err


def test_an_input_of_the_wrong_length_and_a_network_that_is_none(npubox: Npubox, tmp_path: Path) -> None:
    (tmp_path / "ifm").write_bytes(bytes(63))
    done = npubox("inference-runner", "--index", "0", "-i", tmp_path / "ifm")
    assert (done.status, "inputs take 64" in done.err) == (2, True), done.err
    done = npubox("inference-runner", "-n", DIGITS / "digits.py")
    assert done.status == 2, done.err
