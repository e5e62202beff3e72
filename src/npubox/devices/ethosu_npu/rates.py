# SPDX-License-Identifier: Apache-2.0
"""What the parts of each U55 and U65 do in a cycle: the constants of the cost model (docs/cycles.md).

Source: the figures that Vela 5.2.0, Arm's compiler, estimates with, and its system configurations
Ethos_U55_High_End_Embedded and Ethos_U65_Client_Server. None was measured on silicon.
"""

from __future__ import annotations

from dataclasses import dataclass

from npubox.hw.ethosu.commands import SRAM_REGION
from npubox.hw.ethosu.registers import Product

STEP_CYCLES = 4  # a step of the MAC array: 32 products for each output of a microblock
STEP_PRODUCTS = 32
DEPTHWISE_TAPS = 4  # of a step where an output has one channel to sum over
POOL_TAP_CYCLES = 4  # a window element of a microblock, of which a pool takes at least POOL_TAPS
POOL_TAPS = 4
WEIGHTS_PER_CYCLE = 8  # of one core's decoder
SUB_KERNEL = 8  # largest height and width after dilation; a larger kernel is done in parts
BRICK = 16  # channels that lie and are written together
KERNELS = 2  # outstanding at once
SIXTEENTHS = 16

SRAM, EXTERNAL = 0, 1


@dataclass(frozen=True)
class Port:
    """A memory behind an AXI port: bytes a cycle of the NPU, burst in bytes, latencies in cycles."""

    bytes_per_cycle: int
    burst: int
    read_latency: int
    write_latency: int


@dataclass(frozen=True)
class Memories:
    """`ports` by SRAM and EXTERNAL; `beat` is their width in bytes, `transfers` how many DMA transfers can
    be outstanding. Regions that are not in `sram_regions` are external."""

    ports: tuple[Port, Port]
    beat: int
    transfers: int
    sram_regions: frozenset[int]

    def place(self, region: int | None) -> int:
        """SRAM or EXTERNAL; the NPU's internal memory (None) is as fast as SRAM."""
        return SRAM if region is None or region in self.sram_regions else EXTERNAL

    def port(self, region: int | None) -> Port:
        return self.ports[self.place(region)]


MEMORIES = {
    Product.U55: Memories((Port(8, 32, 32, 32), Port(1, 128, 64, 0)), 8, 1, frozenset(range(1, 8))),
    Product.U65: Memories((Port(16, 32, 32, 32), Port(12, 128, 500, 250)), 16, 2, frozenset({SRAM_REGION})),
}


@dataclass(frozen=True)
class Core:
    """One core: its microblock (output height, width, depth), and the sixteenths of a cycle that its output
    unit takes for an element, by what made the element."""

    microblock: tuple[int, int, int]
    plain: int
    maximum: int
    product: int  # also anything from a 40-bit accumulator
    addition: int
    product_32: int  # of 8- or 16-bit operands
    binary_32: int  # two 32-bit operands
    unary_32: int
    table: int = SIXTEENTHS  # with a table, tanh or sigmoid, at least this


CORES = {
    32: Core((1, 1, 4), 32, 16, 48, 96, 48, 32, 48),
    64: Core((1, 1, 8), 16, 8, 24, 48, 24, 16, 24),
    128: Core((1, 2, 8), 8, 4, 12, 24, 12, 12, 20),
    256: Core((2, 2, 8), 4, 2, 6, 12, 8, 10, 18),
}
