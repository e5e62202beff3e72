# SPDX-License-Identifier: Apache-2.0
"""Jobs that fail on the virtual NPU raise in the client, though the driver's ABI calls them done."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import npubox
from npubox.devices.ethosu_npu.run import Injection
from npubox.formats.tflite import read_network
from npubox.hw.ethosu.commands import Cmd0
from npubox.machines import control
from tests.networks import compiled_by_vela

DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "digits.tflite"
IMAGE = np.full((1, 8, 8, 1), 3, np.int8)


@pytest.fixture
def device() -> Iterator[npubox.Device]:
    with npubox.open("imx93") as opened:
        yield opened


@pytest.mark.parametrize("injection", list(Injection))
def test_injected_fault_fails_one_job(device: npubox.Device, injection: Injection) -> None:
    with device.load(DIGITS) as network:
        expected = np.asarray(network(IMAGE))
        assert device.machine is not None
        device.machine.inject(injection)
        failed, fine = network.submit(IMAGE), network.submit(IMAGE)
        with pytest.raises(npubox.JobFailed) as caught:
            failed.wait(timeout=60)
        assert caught.value.reason
        np.testing.assert_array_equal(fine.outputs[0], expected)


def test_what_is_not_modelled_is_named(device: npubox.Device) -> None:
    """A pooling mode that no U65 has, in the middle of a stream that the driver accepts."""
    content = bytearray(compiled_by_vela(DIGITS.read_bytes(), "ethos-u65-256").content)
    npu = next(op.npu for op in read_network(bytes(content)).operators if op.npu is not None)
    words = struct.unpack(f"<{len(npu.stream.words) // 4}I", npu.stream.words)
    offset = 4 * next(i for i, word in enumerate(words) if word & 0xFFFF == Cmd0.OP_POOL)
    content[content.index(npu.stream.words) + offset + 2] = 7
    with device.load(bytes(content)) as network, pytest.raises(npubox.JobFailed) as caught:
        network(IMAGE)
    assert caught.value.command is not None
    assert "POOL" in caught.value.command
    assert caught.value.offset == offset


def test_streams_that_the_driver_refuses(device: npubox.Device) -> None:
    """Without its last word (STOP) the kernel's validation answers EINVAL."""
    content = bytearray(compiled_by_vela(DIGITS.read_bytes(), "ethos-u65-256").content)
    npu = next(op.npu for op in read_network(bytes(content)).operators if op.npu is not None)
    end = content.index(npu.stream.words) + len(npu.stream.words)
    content[end - 4 : end] = struct.pack("<I", Cmd0.OP_KERNEL_WAIT)
    with pytest.raises(npubox.ModelError, match="EINVAL"):
        device.load(bytes(content))


def test_closing_the_machine_with_a_job_in_flight() -> None:
    with npubox.open("imx93") as device, device.load(DIGITS) as network:
        for _ in range(20):
            network.submit(IMAGE).close()


def test_more_jobs_in_flight_than_reports_are_kept(
    device: npubox.Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "KEPT_REPORTS", 4)
    with device.load(DIGITS) as network:
        first = network.submit(IMAGE)
        for _ in range(5):
            network.submit(IMAGE).close()
        waiting = [network.submit(IMAGE) for _ in range(20)]
        for inference in (*waiting, first):
            assert inference.cycles == first.cycles
