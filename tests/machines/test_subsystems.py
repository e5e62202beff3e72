# SPDX-License-Identifier: Apache-2.0
"""The machines with a Cortex-M: their driver on their hardware, in one process and in two."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import time
from collections.abc import Sequence
from typing import Any

import pytest
from scripts.make_builtin_networks import NETWORKS, built_in

from npubox.core.file import OpenFile
from npubox.core.node import adopt, own_caller
from npubox.core.pending import Pending
from npubox.devices.ethosu_npu.configuration import CONFIGURATIONS
from npubox.devices.ethosu_subsystem.configuration import Range
from npubox.devices.ethosu_subsystem.faults import SubsystemInjection
from npubox.machines.machine import Parts
from npubox.machines.preset import find_preset, presets
from npubox.machines.subsystem import SubsystemPreset
from npubox.machines.subsystem_device import device_configuration
from npubox.machines.subsystem_part import SplitSubsystemPart, SubsystemPart
from npubox.uapi import ethosu_linux as uapi
from npubox.uapi.ioctl import Ioctl
from tests.vectors import digits_vectors

MACHINES = ("imx93-linux", "generic-u55-subsystem", "two-subsystems")
SUBSYSTEMS = [
    (preset.name, part) for preset in presets() for part in preset.parts if isinstance(part, SubsystemPreset)
]


def test_these_are_the_machines_with_a_subsystem() -> None:
    assert {name for name, _ in SUBSYSTEMS} == set(MACHINES)


@pytest.mark.parametrize("part", [part for _, part in SUBSYSTEMS], ids=lambda part: part.name)
def test_memories_do_not_overlap(part: SubsystemPreset) -> None:
    built = device_configuration(part)
    start = part.memory_region.address - part.dma_ranges[0].cpu + part.dma_ranges[0].device
    places = [
        built.in_queue,
        built.out_queue,
        Range(start, part.memory_region.size),
        built.arena,
        Range(built.flash, sum(len(network) for network in built.networks)),
        *([built.fast_memory] if built.fast_memory else []),
    ]
    places.sort(key=lambda place: place.address)
    for before, after in itertools.pairwise(places):
        assert before.address + before.size <= after.address
    assert places[-1].address + places[-1].size <= 1 << 32, "messages carry 32 bits"


def test_the_firmwares_own_networks_are_what_vela_makes_of_the_digits() -> None:
    files = {path.name: path.read_bytes() for path in NETWORKS.glob("*.tflite")}
    assert files == built_in()
    assert {name for _, part in SUBSYSTEMS for name in part.networks} == set(files)


class Program:
    """A program with one node open, by descriptors as the ABI has them. Close it to close them all."""

    def __init__(self, parts: Parts, path: str) -> None:
        (node,) = (node for node in parts.nodes if node.path == path)
        self._caller = own_caller()
        self._made: list[int] = []
        self.node = self._caller.files.install(parts.open(node, os.O_RDWR, self._caller), os.O_RDWR)
        self._made.append(self.node)

    def call(self, on: int, declared: Ioctl[Any], **fields: Any) -> tuple[Any, int]:
        """The struct afterwards, and the result."""
        args = declared.struct(**fields)
        result = self.file(on).ioctl(declared.number, ctypes.addressof(args), self._caller)
        return args, result.wait() if isinstance(result, Pending) else result

    def make(self, on: int, declared: Ioctl[Any], **fields: Any) -> int:
        number = self.call(on, declared, **fields)[1]
        self._made.append(number)
        return number

    def file(self, number: int) -> OpenFile:
        file = self._caller.files.lookup(number)
        assert file is not None
        return file

    def pages(self, buffer: int, size: int) -> mmap.mmap:
        backing = self.file(buffer).mmap(size, mmap.PROT_READ, mmap.MAP_SHARED, 0, self._caller)
        return mmap.mmap(backing.fd, size, offset=backing.offset)

    def buffer(self, content: bytes) -> int:
        number = self.make(self.node, uapi.BUFFER_CREATE, capacity=len(content))
        self.pages(number, len(content))[:] = content
        self.call(number, uapi.BUFFER_SET, offset=0, size=len(content))
        return number

    def infer(self, network: int, inputs: Sequence[int], outputs: Sequence[int]) -> int:
        filled = [list(numbers) + [0] * (uapi.FD_MAX - len(numbers)) for numbers in (inputs, outputs)]
        return self.make(
            network,
            uapi.INFERENCE_CREATE,
            ifm_count=len(inputs),
            ifm_fd=tuple(filled[0]),
            ofm_count=len(outputs),
            ofm_fd=tuple(filled[1]),
        )

    def outcome(self, inference: int) -> uapi.Status:
        deadline = time.monotonic() + 60
        while not self.file(inference).poll():
            assert time.monotonic() < deadline, "the inference does not end"
            time.sleep(0.001)
        return uapi.Status(self.call(inference, uapi.INFERENCE_STATUS)[0].status)

    def close(self) -> None:
        for number in self._made:
            adopt(number).close()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def assert_recognises(program: Program, network: int) -> None:
    """The first test pictures, all of them under way at once."""
    vectors = digits_vectors(6)
    results = [program.make(program.node, uapi.BUFFER_CREATE, capacity=10) for _ in vectors]
    inferences = [
        program.infer(network, [program.buffer(vector.inputs[0].tobytes())], [result])
        for vector, result in zip(vectors, results, strict=True)
    ]
    assert [program.outcome(inference) for inference in inferences] == [uapi.Status.OK] * len(vectors)
    for result, vector in zip(results, vectors, strict=True):
        assert program.pages(result, 10)[:] == vector.outputs[0].tobytes()


@pytest.mark.parametrize(
    ("machine", "split"), [*((machine, False) for machine in MACHINES), ("two-subsystems", True)]
)
def test_digits_by_index_and_from_a_buffer(machine: str, split: bool) -> None:
    preset = find_preset(machine)
    parts = Parts(preset, split=split)
    try:
        assert len(parts.processes) == (len(preset.parts) if split else 0)
        for part in preset.parts:
            assert isinstance(part, SubsystemPreset)
            with Program(parts, part.node) as program:
                capabilities, _ = program.call(program.node, uapi.CAPABILITIES_REQ)
                configuration = CONFIGURATIONS[part.accelerator]
                assert 1 << capabilities.hw_cfg.macs_per_cc == configuration.macs
                model = program.buffer(part.network_files()[0])
                for fields in ({"type": 1, "fd": model}, {"type": 2, "fd": 0}):
                    network = program.make(program.node, uapi.NETWORK_CREATE, **fields)
                    info, _ = program.call(network, uapi.NETWORK_INFO)
                    assert (info.ifm_size[0], info.ofm_size[0]) == (64, 10)
                    assert_recognises(program, network)
    finally:
        parts.close()


def test_a_buffer_belongs_to_its_node() -> None:
    parts = Parts(find_preset("two-subsystems"), split=False)
    with Program(parts, "/dev/ethosu0") as first, Program(parts, "/dev/ethosu1") as second:
        buffer = first.buffer(bytes(64))
        with pytest.raises(OSError, match="no buffer of"):
            second.make(second.node, uapi.NETWORK_CREATE, type=1, fd=buffer)
    parts.close()


@pytest.mark.parametrize("split", [False, True], ids=["one process", "device process"])
def test_after_any_fault_the_next_inference_works(split: bool) -> None:
    parts = Parts(find_preset("imx93-linux"), split=split)
    (part,) = parts.parts
    try:
        with Program(parts, "/dev/ethosu0") as program:
            network = program.make(program.node, uapi.NETWORK_CREATE, type=2, fd=0)
            for injection in SubsystemInjection:
                if isinstance(part, SplitSubsystemPart):
                    part.inject(injection.value)
                else:
                    assert isinstance(part, SubsystemPart)
                    part.inject(injection)
                result = program.make(program.node, uapi.BUFFER_CREATE, capacity=10)
                inference = program.infer(network, [program.buffer(bytes(64))], [result])
                assert program.outcome(inference) is uapi.Status.ERROR, injection
                assert_recognises(program, network)
    finally:
        parts.close()
