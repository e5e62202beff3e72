# SPDX-License-Identifier: Apache-2.0
"""The configurations of the U55 and U65, and the ID and CONFIG words they show."""

from __future__ import annotations

from dataclasses import dataclass

from npubox.hw.ethosu.registers import Product

CUSTOM_DMA = 1 << 27


@dataclass(frozen=True)
class Configuration:
    """One NPU as it is built; `macs` are 8 x 8 bit multipliers of all cores together."""

    name: str
    product: Product
    macs: int
    shram_kib: int
    cores: int = 1

    @property
    def ofm_microblock(self) -> int:
        """Output channels of a microblock (facts, ethosu-npu.md §5.4)."""
        return 4 if self.macs == 32 else 8

    @property
    def config(self) -> int:
        """The CONFIG register: product, SHRAM in KiB, log2 of the MACs."""
        return self.product << 28 | self.shram_kib << 8 | self.macs.bit_length() - 1

    @property
    def npu_id(self) -> int:
        """The ID register of architecture 1.0.6; product_major 6 for the U65, 4 for the U55."""
        return 0x10066001 if self.product is Product.U65 else 0x10064001


CONFIGURATIONS = {
    c.name: c
    for c in (
        Configuration("ethos-u55-32", Product.U55, 32, 16),
        Configuration("ethos-u55-64", Product.U55, 64, 16),
        Configuration("ethos-u55-128", Product.U55, 128, 24),
        Configuration("ethos-u55-256", Product.U55, 256, 48),
        Configuration("ethos-u65-256", Product.U65, 256, 48),
        Configuration("ethos-u65-512", Product.U65, 512, 96, cores=2),
    )
}
