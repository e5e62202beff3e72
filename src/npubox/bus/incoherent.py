# SPDX-License-Identifier: Apache-2.0
"""A DMA address space whose device does not see the host's caches, so that a forgotten flush shows."""

from __future__ import annotations

import mmap
from dataclasses import replace
from weakref import WeakKeyDictionary

from npubox.bus.port import Prot
from npubox.bus.virtual import AddressSpace, DmaMapping


class IncoherentSpace(AddressSpace):
    """For the device a CACHED mapping is as of its last flush, and for the host as of its last invalidation.

    Each of them has pages of its own for the device, which `sync_for_device` and `sync_for_cpu` copy to and
    from. Nothing else ever moves: no line is written back by chance.
    """

    def __init__(self) -> None:
        super().__init__()
        self._host_pages: WeakKeyDictionary[DmaMapping, mmap.mmap] = WeakKeyDictionary()

    def sync_for_device(self, address: int, size: int) -> None:
        mapping = self._mapping(address, size)
        host = self._host_pages.get(mapping)
        if host is not None:
            start = address - mapping.address
            mapping.memory[start : start + size] = host[start : start + size]

    def sync_for_cpu(self, address: int, size: int) -> None:
        mapping = self._mapping(address, size)
        host = self._host_pages.get(mapping)
        if host is not None:
            start = address - mapping.address
            host[start : start + size] = mapping.memory[start : start + size]

    def _made(self, mapping: DmaMapping) -> DmaMapping:
        if not mapping.prot & Prot.CACHED:
            return mapping
        own = mmap.mmap(-1, mapping.size)
        own[:] = mapping.memory[:]  # the caches start clean
        made = replace(mapping, memory=own)
        self._host_pages[made] = mapping.memory
        return made
