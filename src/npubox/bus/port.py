# SPDX-License-Identifier: Apache-2.0
"""The lower waist: how a driver reaches a device, whichever way it travels.

A port carries 32-bit register accesses, a DMA address space, interrupts and a clock. Its ways are the
in-process one (`npubox.bus.virtual`), later another process over vfio-user and a real device through
VFIO. So nothing here may assume shared Python objects or zero latency: DMA mappings name a file
descriptor and an offset (as VFIO and vfio-user do), interrupts arrive on a thread of the port's own, or
on one that was lent to it, and registers may be slow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Protocol


class Prot(IntFlag):
    """What the device may do with a DMA mapping."""

    READ = 1
    WRITE = 2
    CACHED = 4
    """The host reaches the pages through its caches: on an incoherent machine each side sees what the other
    wrote only after `DmaSpace.sync_for_device` or `sync_for_cpu`."""


class Timer(Protocol):
    def cancel(self) -> None:
        """Stop the timer. A callback that already began runs to its end."""


class Clock(Protocol):
    """The time that drivers measure the device with, in nanoseconds.

    In a virtual machine it is device time, advanced by the devices' cost models, so a slow host never
    becomes a hardware time-out; over vfio-user and VFIO it is the host's monotonic time.
    """

    def now(self) -> int:
        """Nanoseconds since the machine was powered up."""

    def call_at(self, deadline: int, callback: Callable[[], None]) -> Timer:
        """Run `callback` on a thread of the clock's own, never the caller's, once `now() >= deadline`."""

    def sleep(self, duration: int) -> None:
        """Return when `duration` nanoseconds of this clock have passed."""


class DmaSpace(Protocol):
    """The device's view of memory, as the driver sets it up. Addresses are device addresses."""

    def map(self, address: int, fd: int, offset: int, size: int, prot: Prot) -> None:
        """Let the device reach `size` bytes of the file `fd` from `offset` on at `address`.

        All three are page multiples. Raises OSError EINVAL where they are not and EEXIST on overlap. Like a
        register write it may still be on its way afterwards; a register read that returns has pushed it.
        """

    def unmap(self, address: int, size: int) -> None:
        """Take a mapping back, exactly as it was made; OSError ENOENT if there is none."""

    def sync_for_device(self, address: int, size: int) -> None:
        """Clean the host's caches: the device sees what was written to a CACHED mapping. OSError ENOENT
        where [address, address + size) is not within one mapping."""

    def sync_for_cpu(self, address: int, size: int) -> None:
        """Invalidate the host's caches: the host sees what the device wrote to a CACHED mapping, once this
        returns. OSError ENOENT as `sync_for_device`."""


class Port(Protocol):
    """One device as its driver sees it."""

    @property
    def dma(self) -> DmaSpace: ...

    @property
    def clock(self) -> Clock: ...

    def read32(self, offset: int) -> int:
        """Read the 32-bit register at byte `offset` of the register window."""

    def write32(self, offset: int, value: int) -> None:
        """Write the 32-bit register at byte `offset`. Never blocks on the work that it starts."""

    def on_interrupt(self, index: int, handler: Callable[[], None] | None) -> None:
        """Call `handler` for each interrupt `index`, on a thread of the port's or one lent to it; None takes
        it away."""

    def lend(self, deadline: int | None) -> bool:
        """The calling thread would sleep until the device has worked: the device may use it to work.

        Whoever calls holds no lock. True if something was done and the caller should look again whether it
        still has to wait; False, at once, where the port's device needs no thread (a real one, one in another
        process). `deadline` is when the caller wants its thread back, in CLOCK_MONOTONIC nanoseconds or None;
        it may be late by one operation of the device.
        """


@dataclass(frozen=True)
class PciIdentity:
    """What configuration space says that a function is. `address` is its place, e.g. `0000:00:1c.0`."""

    address: str
    vendor: int
    device: int
    revision: int
    class_code: int


@dataclass(frozen=True)
class BarArea:
    """`size` bytes of a BAR from `start` on that are memory: the same bytes of file `fd` from `offset` on.

    The device keeps the descriptor; who maps it may do so at any time before the device is closed.
    """

    start: int
    size: int
    fd: int
    offset: int


@dataclass(frozen=True)
class BarInfo:
    """One base address register: its window's size in bytes, and what of it can be mapped."""

    size: int
    areas: tuple[BarArea, ...] = ()
    prefetchable: bool = False


class PciDevice(Protocol):
    """One PCI function as its driver sees it: what vfio-user and VFIO offer.

    `dma` takes bus addresses: what the function puts on the bus, without any window bits of its own.
    """

    @property
    def identity(self) -> PciIdentity: ...

    @property
    def bars(self) -> Mapping[int, BarInfo]:
        """The BARs that the function has, by number."""

    @property
    def vectors(self) -> int:
        """How many MSI-X vectors it has; 0 for a function that never interrupts."""

    @property
    def dma(self) -> DmaSpace: ...

    @property
    def clock(self) -> Clock: ...

    def read32(self, bar: int, offset: int) -> int:
        """Read the 32-bit word at byte `offset` of a BAR.

        OSError EINVAL outside it, ENODEV if the device is gone.
        """

    def write32(self, bar: int, offset: int, value: int) -> None:
        """Write it; errors as for `read32`. Never blocks on the work that it starts."""

    def on_interrupt(self, vector: int, handler: Callable[[], None] | None) -> None:
        """Call `handler` for each interrupt of `vector`, on a thread of the port's; None takes it away."""

    def lend(self) -> bool:
        """The calling thread would wait for the device's work: a device that works in this process may do a
        piece of it on that thread, a few milliseconds at most. Whether it did."""

    def reset(self) -> None:
        """Reset the function; DMA mappings and interrupt handlers stay."""


@dataclass(frozen=True)
class MemoryPool:
    """On-chip memory at device `address`; the same bytes are `size` bytes of file `fd` from `offset`."""

    address: int
    fd: int
    offset: int
    size: int


@dataclass(frozen=True)
class DmaRange:
    """One entry of a device tree's `dma-ranges`: `size` bytes that the CPU has at `cpu` and the device at
    `device`."""

    device: int
    cpu: int
    size: int


def device_address(ranges: Sequence[DmaRange], address: int, size: int) -> int:
    """Where the device sees what the CPU has at `address`: by the first range that holds all `size` bytes and
    does not end with them, the address itself without one. Arm's driver applies it itself, and strictly so
    (ethosu-linux.md §2.7)."""
    for entry in ranges:
        if entry.cpu <= address and address + size < entry.cpu + entry.size:
            return address - entry.cpu + entry.device
    return address


@dataclass(frozen=True)
class PlatformDevice:
    """What a platform bus hands to a driver's probe: the port and the resources around it.

    `dma_start` and `dma_end` bound the addresses a driver may give to buffers (`dma_end` exclusive): RAM as
    the device sees it, or as the CPU does where there are `dma_ranges` to translate by. `name` is the
    kernel's device name, e.g. `4a900000.npu`; `compatible` the device-tree strings, most specific first;
    `memory` the memory that the device tree's `reg` lists by name, at the CPU's addresses.
    """

    name: str
    port: Port
    dma_start: int
    dma_end: int
    compatible: tuple[str, ...] = ()
    sram: MemoryPool | None = None
    memory: Mapping[str, MemoryPool] = field(default_factory=dict)
    dma_ranges: tuple[DmaRange, ...] = ()
