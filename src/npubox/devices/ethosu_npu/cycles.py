# SPDX-License-Identifier: Apache-2.0
"""The cost model: cycles an operation takes on the virtual NPU. See docs/cycles.md.

A model, not a measurement of silicon: an operation costs the longest of its parallel parts (MAC array,
output unit, weight decoder, memory), each at the unit's documented peak rate, plus a fixed start.
"""

from __future__ import annotations

from dataclasses import dataclass

from npubox.devices.ethosu_npu.operations import (
    Convolution,
    Dma,
    Elementwise,
    FeatureMap,
    Operation,
    Pool,
)

START_CYCLES = 64
OUTPUT_MACS_PER_ELEMENT = 16  # the output unit finishes macs / 16 elements a cycle
WEIGHT_BYTES_PER_CYCLE = 8
MEMORY_BYTES_PER_CYCLE = 8


@dataclass(frozen=True)
class Cost:
    """Cycles of one operation, and those in which its parts are active."""

    total: int
    mac_active: int = 0
    output_active: int = 0
    weight_active: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.total + other.total,
            self.mac_active + other.mac_active,
            self.output_active + other.output_active,
            self.weight_active + other.weight_active,
        )

    def __sub__(self, other: Cost) -> Cost:
        return Cost(
            self.total - other.total,
            self.mac_active - other.mac_active,
            self.output_active - other.output_active,
            self.weight_active - other.weight_active,
        )


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def _bytes(*maps: FeatureMap | None) -> int:
    return sum(m.height * m.width * m.depth * m.element_size for m in maps if m is not None)


def cost(operation: Operation, macs: int) -> Cost:
    """The cycles of `operation` on an NPU with `macs` multipliers (8 x 8 bit) in all."""
    match operation:
        case Dma():
            return Cost(START_CYCLES + -(-operation.length // MEMORY_BYTES_PER_CYCLE))
        case Convolution():
            ifm, ofm, window = operation.ifm, operation.ofm, operation.window
            pixels = _round_up(ofm.height, 2) * _round_up(ofm.width, 2)
            taps = window.height * window.width
            lanes = 4 if operation.depthwise else _round_up(ifm.depth, 8)
            work = pixels * _round_up(ofm.depth, 8) * (_round_up(taps, 4) if operation.depthwise else taps)
            mac = work * lanes * ifm.element_size // macs
            output = _output_cycles(ofm, macs)
            weight = sum(size for _, size in operation.weight_streams) // WEIGHT_BYTES_PER_CYCLE
            memory = _bytes(ifm, ofm) // MEMORY_BYTES_PER_CYCLE
            return Cost(START_CYCLES + max(mac, output, weight, memory), mac, output, weight)
        case Pool():
            ofm, window = operation.ofm, operation.window
            elements = operation.ifm.depth if ofm.depth == 1 else ofm.depth
            mac = ofm.height * ofm.width * elements * window.height * window.width * 8 // macs
            output = _output_cycles(ofm, macs)
            memory = _bytes(operation.ifm, ofm) // MEMORY_BYTES_PER_CYCLE
            return Cost(START_CYCLES + max(mac, output, memory), mac, output)
        case Elementwise():
            output = _output_cycles(operation.ofm, macs)
            memory = _bytes(operation.ifm, operation.ifm2, operation.ofm) // MEMORY_BYTES_PER_CYCLE
            return Cost(START_CYCLES + max(output, memory), 0, output)
        case _:
            return Cost(1)


def _output_cycles(ofm: FeatureMap, macs: int) -> int:
    elements = ofm.height * ofm.width * ofm.depth
    return elements * OUTPUT_MACS_PER_ELEMENT * ofm.element_size // macs
