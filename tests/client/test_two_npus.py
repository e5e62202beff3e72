# SPDX-License-Identifier: Apache-2.0
"""Two NPUs behind one Cortex-M, and two subsystems in one machine, from Python."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import npubox
from npubox import ethosu
from npubox.client.node import Opened
from npubox.errors import DeviceError
from npubox.machines.machine import Machine
from npubox.machines.preset import find_preset
from npubox.machines.subsystem import SubsystemPreset
from npubox.machines.subsystem_control import InferenceOutcome
from npubox.machines.subsystem_part import SubsystemPart
from tests.vectors import DIGITS, digits_vectors

MACHINE = "two-subsystems"
NODE = "/dev/ethosu0"
INFERENCES = 8


@contextmanager
def subsystem(npus: int) -> Iterator[tuple[ethosu.Device, SubsystemPart]]:
    """The machine's first subsystem, with so many NPUs."""
    preset = find_preset(MACHINE)
    first = preset.parts[0]
    assert isinstance(first, SubsystemPreset)
    machine = Machine(replace(preset, parts=(replace(first, npus=npus),)))
    with ethosu.Device.of(Opened(MACHINE, machine.open_node(NODE), machine, NODE)) as device:
        part = machine.part_of(NODE)
        assert isinstance(part, SubsystemPart)
        yield device, part


def start_when_all_are_there(part: SubsystemPart) -> None:
    """No NPU starts before all inferences wait in the firmware's queue: they arrive at one moment."""
    schedule: Any = part._hardware.subsystem._schedule
    may_start = schedule._may_start
    full = False

    def gated(npu: int) -> bool:
        nonlocal full
        full = full or len(schedule._fifo) == INFERENCES
        return full and bool(may_start(npu))

    schedule._may_start = gated


def run_at_once(npus: int) -> list[InferenceOutcome]:
    """What became of eight inferences that arrived together; their results are checked."""
    outcomes: list[InferenceOutcome] = []
    vectors = digits_vectors(INFERENCES)
    with subsystem(npus) as (device, part), device.network(0) as network:
        part.job_watcher = lambda client, number, error, outcome: outcomes.append(outcome)
        images = [device.buffer(64) for _ in vectors]
        scores = [device.buffer(10) for _ in vectors]
        for image, vector in zip(images, vectors, strict=True):
            image.fill(vector.inputs[0])
        start_when_all_are_there(part)
        inferences = [network.infer([image], [score]) for image, score in zip(images, scores, strict=True)]
        for inference, score, vector in zip(inferences, scores, vectors, strict=True):
            inference.wait(60)
            np.testing.assert_array_equal(score.valid(np.int8, (1, 10)), vector.outputs[0])
        for thing in (*inferences, *images, *scores):
            thing.close()
    return outcomes


def test_two_npus_have_twice_the_throughput_in_device_time() -> None:
    one, two = run_at_once(1), run_at_once(2)
    for outcomes, npus in ((one, {0}), (two, {0, 1})):
        assert [outcome.error for outcome in outcomes] == [0] * INFERENCES, "none is lost"
        assert {outcome.npu for outcome in outcomes} == npus
    took = [
        max(outcome.end_ns for outcome in outcomes) - min(outcome.start_ns for outcome in outcomes)
        for outcomes in (one, two)
    ]
    assert took[0] == 2 * took[1]


def test_each_node_of_a_machine_can_be_opened() -> None:
    vector = digits_vectors(1)[0]
    for node, accelerator in (("/dev/ethosu0", "ethos-u55-256"), ("/dev/ethosu1", "ethos-u65-512")):
        with npubox.open(f"{MACHINE}:{node}") as device, device.load(DIGITS / "digits.tflite") as network:
            assert device.accelerator == accelerator
            np.testing.assert_array_equal(network(*vector.inputs), vector.outputs[0])
    with pytest.raises(DeviceError, match="it has /dev/ethosu0, /dev/ethosu1"):
        npubox.open(f"{MACHINE}:/dev/ethosu2")


def test_the_short_queue_header_of_nxp() -> None:
    vector = digits_vectors(1)[0]
    preset = find_preset("imx93-linux")
    (part,) = preset.parts
    assert isinstance(part, SubsystemPreset)
    machine = Machine(replace(preset, parts=(replace(part, short_header=True),)))
    with ethosu.Device.of(Opened("short", machine.open_node(NODE), machine, NODE)) as device:
        image, scores = device.buffer(64), device.buffer(10)
        image.fill(vector.inputs[0])
        with device.network(0) as network, network.infer([image], [scores]) as inference:
            inference.wait(60)
        np.testing.assert_array_equal(scores.valid(np.int8, (1, 10)), vector.outputs[0])
        image.close()
        scores.close()
