# SPDX-License-Identifier: Apache-2.0
"""What the NPUs of a subsystem are, as its firmware tells (facts, ethosu-linux.md §1.3)."""

from __future__ import annotations

from dataclasses import dataclass

from npubox.formats.payload import CONFIGURATIONS
from npubox.uapi import ethosu_linux as uapi

_PRODUCTS = {4: 0, 6: 1}  # ID's product_major to CONFIG's product, both of architecture 1
_U85 = 2


@dataclass(frozen=True)
class Capabilities:
    """What the NPUs of a subsystem are: fields of their registers ID and CONFIG, and the version of the
    driver that the subsystem's firmware has for them. Versions are (major, minor, patch)."""

    version_status: int
    version: tuple[int, int]
    product: int
    architecture: tuple[int, int, int]
    macs: int
    command_stream_version: int
    custom_dma: bool
    driver: tuple[int, int, int]

    @classmethod
    def of(cls, told: uapi.DeviceCapabilities) -> Capabilities:
        npu, config = told.hw_id, told.hw_cfg
        return cls(
            version_status=npu.version_status,
            version=(npu.version_major, npu.version_minor),
            product=npu.product_major,
            architecture=(npu.arch_major_rev, npu.arch_minor_rev, npu.arch_patch_rev),
            macs=1 << config.macs_per_cc,
            command_stream_version=config.cmd_stream_version,
            custom_dma=bool(config.custom_dma),
            driver=(told.driver_major_rev, told.driver_minor_rev, told.driver_patch_rev),
        )

    @property
    def id_word(self) -> int:
        """The register ID."""
        major, minor, patch = self.architecture
        version = self.version[0] << 8 | self.version[1] << 4 | self.version_status
        return major << 28 | minor << 20 | patch << 16 | self.product << 12 | version

    @property
    def config_word(self) -> int:
        """The register CONFIG of the known NPU with this product and so many MACs; else only their fields."""
        fields = self._family << 28 | self.command_stream_version << 4 | self.macs.bit_length() - 1
        known = (word for word in CONFIGURATIONS if word & 0xF000_000F == fields & 0xF000_000F)
        return next(known, fields)

    @property
    def accelerator(self) -> str:
        """The name in Arm's and Vela's terms, e.g. `ethos-u65-256`."""
        return f"ethos-{('u55', 'u65', 'u85')[self._family]}-{self.macs}"

    @property
    def _family(self) -> int:
        return _U85 if self.architecture[0] > 1 else _PRODUCTS.get(self.product, 0)
