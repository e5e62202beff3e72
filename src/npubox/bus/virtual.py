# SPDX-License-Identifier: Apache-2.0
"""The in-process way of the lower waist: address space, clock and port of a virtual machine."""

from __future__ import annotations

import ctypes
import errno
import heapq
import itertools
import mmap
import threading
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from npubox.bus.port import BarInfo, PciIdentity, Prot

PAGE = mmap.PAGESIZE
_READ, _WRITE = int(Prot.READ), int(Prot.WRITE)
QUIET_PACE = 0.01  # seconds of the host between timers, while a quiet machine waits for them


class DmaFault(Exception):  # noqa: N818 - the bus's own word
    """A device reached for an address that is not mapped for it."""

    def __init__(self, address: int, size: int, write: bool, reason: str) -> None:
        self.address = address
        self.size = size
        self.write = write
        self.reason = reason
        super().__init__(f"DMA {'write' if write else 'read'} of {size} bytes at {address:#x}: {reason}")


@dataclass(frozen=True, eq=False)
class DmaMapping:
    """`size` bytes of a file at device `address`; `memory` is the same pages, mapped here."""

    address: int
    size: int
    prot: Prot
    memory: mmap.mmap = field(repr=False)

    @cached_property
    def end(self) -> int:
        return self.address + self.size

    @cached_property
    def access(self) -> int:
        """`prot` as a plain number: masking with flags is slow."""
        return int(self.prot)

    @cached_property
    def pointer(self) -> int:
        """Where `memory` is in this process; good as long as this object is held."""
        return ctypes.addressof(ctypes.c_char.from_buffer(self.memory))


class AddressSpace:
    """One device's DMA address space: what `DmaSpace` promises drivers, and look-up for devices. `generation`
    counts its changes. `settle`, if the device sets it, returns when no access that had begun goes on."""

    def __init__(self) -> None:
        self.generation = 0
        self.settle: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._starts: list[int] = []
        self._mappings: list[DmaMapping] = []

    def map(self, address: int, fd: int, offset: int, size: int, prot: Prot) -> None:
        """See `DmaSpace.map`."""
        if size <= 0 or address < 0 or (address | offset | size) % PAGE:
            raise OSError(errno.EINVAL, f"DMA mapping {address:#x}+{size:#x} is not made of whole pages")
        host = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=offset)
        mapping = self._made(DmaMapping(address, size, prot, host))
        with self._lock:
            at = bisect_right(self._starts, address)
            before = self._mappings[at - 1] if at else None
            after = self._mappings[at] if at < len(self._mappings) else None
            if (before and before.end > address) or (after and mapping.end > after.address):
                raise OSError(errno.EEXIST, f"DMA mapping {address:#x}+{size:#x} overlaps another")
            self._starts.insert(at, address)
            self._mappings.insert(at, mapping)
            self.generation += 1

    def unmap(self, address: int, size: int) -> None:
        """See `DmaSpace.unmap`. The pages stay until the device's last view of them is gone."""
        with self._lock:
            at = bisect_right(self._starts, address) - 1
            if at < 0 or self._starts[at] != address or self._mappings[at].size != size:
                raise OSError(errno.ENOENT, f"no DMA mapping {address:#x}+{size:#x}")
            del self._starts[at], self._mappings[at]
            self.generation += 1
        if self.settle is not None:
            self.settle()

    def sync_for_device(self, address: int, size: int) -> None:
        """See `DmaSpace.sync_for_device`. This space is coherent: nothing to do."""
        self._mapping(address, size)

    def sync_for_cpu(self, address: int, size: int) -> None:
        """See `DmaSpace.sync_for_cpu`."""
        self._mapping(address, size)

    def find(self, address: int, size: int, write: bool = False) -> DmaMapping:
        """The mapping that holds all of [address, address + size). Raises DmaFault."""
        mapping = self.at(address, size, write)
        if address + size > mapping.end:
            raise DmaFault(mapping.end, size, write, f"runs past the buffer that ends at {mapping.end:#x}")
        return mapping

    def at(self, address: int, size: int, write: bool = False) -> DmaMapping:
        """The mapping that holds `address`, of an access of `size` bytes maybe a part. Raises DmaFault."""
        with self._lock:
            at = bisect_right(self._starts, address) - 1
            mapping = self._mappings[at] if at >= 0 else None
        if mapping is None or address >= mapping.end:
            raise DmaFault(address, size, write, "nothing is mapped there")
        if not mapping.access & (_WRITE if write else _READ):
            needed = "WRITE" if write else "READ"
            raise DmaFault(address, size, write, f"mapped without {needed} permission")
        return mapping

    def _made(self, mapping: DmaMapping) -> DmaMapping:
        """What a new mapping of the host's pages is for the device."""
        return mapping

    def _mapping(self, address: int, size: int) -> DmaMapping:
        """The mapping that holds all of [address, address + size); OSError ENOENT without one."""
        with self._lock:
            at = bisect_right(self._starts, address) - 1
            if size < 0 or at < 0 or address + size > self._mappings[at].end:
                raise OSError(errno.ENOENT, f"no DMA mapping holds {address:#x}+{size:#x}")
            return self._mappings[at]


@dataclass(order=True)
class PendingTimer:
    deadline: int
    order: int
    callback: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.cancelled = True


class DeviceClock(Protocol):
    """What a device tells of its time: see `VirtualClock`."""

    def now(self) -> int: ...

    def advance_to(self, moment: int) -> None: ...

    def begin_work(self) -> None: ...

    def end_work(self) -> None: ...

    def begin_hang(self) -> None: ...

    def end_hang(self) -> None: ...


class VirtualClock:
    """Device time of one machine, in nanoseconds.

    Time passes when a device says so: `advance_to` between `begin_work` and `end_work`, `begin_hang`
    when it stops making progress with work to do. A driver's `sleep` passes time by itself once no
    device is busy. So a time-out fires only for work that takes that long on the device, however slow
    the host is. `publish`, if given, is told each new time; it must not block.

    Timers that guard against lost answers need time that passes while nobody works: `flow_when` says when.
    """

    def __init__(self, publish: Callable[[int], None] | None = None) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._publish = publish
        self._now = 0
        self._sleepers = 0
        self._busy = 0
        self._hung = 0
        self._begun = 0
        self._quiet: list[Callable[[], bool]] = []
        self._timers: list[PendingTimer] = []
        self._order = itertools.count()
        self._thread: threading.Thread | None = None
        self._closed = False

    def now(self) -> int:
        with self._lock:
            return self._now

    def call_at(self, deadline: int, callback: Callable[[], None]) -> PendingTimer:
        timer = PendingTimer(deadline, next(self._order), callback)
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="npubox-clock", daemon=True)
                self._thread.start()
            heapq.heappush(self._timers, timer)
            self._wake_if_due()
        return timer

    def sleep(self, duration: int) -> None:
        with self._lock:
            target = self._now + duration
            self._sleepers += 1
            try:
                while self._now < target and self._busy and not self._hung and not self._closed:
                    self._changed.wait()
            finally:
                self._sleepers -= 1
            self._pass_to(target)

    def advance_to(self, moment: int) -> None:
        """A device has worked until `moment`; earlier moments change nothing."""
        with self._lock:
            self._pass_to(moment)

    def begin_work(self) -> None:
        """A device has work: until its `end_work`, time passes by the devices' word alone."""
        with self._lock:
            self._busy += 1
            self._begun += 1

    def end_work(self) -> None:
        with self._lock:
            self._busy -= 1
            self._wake_if_due()

    def begin_hang(self) -> None:
        """A device is stuck: until its `end_hang`, time flows up to whatever anybody waits for."""
        with self._lock:
            self._hung += 1
            self._changed.notify_all()

    def end_hang(self) -> None:
        with self._lock:
            self._hung -= 1

    def flow_when(self, quiet: Callable[[], bool]) -> None:
        """Let time flow to the next timer while no device is busy and `quiet()`, asked on the clock's thread,
        is true: its device has nothing to do and nothing under way to its driver. With several devices all
        have to be. One timer every `QUIET_PACE`, so that nobody spins."""
        with self._lock:
            self._quiet.append(quiet)
            self._wake_if_due()

    def close(self) -> None:
        """Stop the clock's thread; pending timers never fire."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _pass_to(self, moment: int) -> None:
        if moment > self._now:
            self._now = moment
            if self._publish is not None:
                self._publish(moment)
            self._wake_if_due()

    def _wake_if_due(self) -> None:
        """Wake whoever waits if there may be something for them: it costs as much as a small job."""
        self._drop_cancelled()
        due = self._timers and (self._hung or self._quiet or self._timers[0].deadline <= self._now)
        if self._sleepers or due:
            self._changed.notify_all()

    def _drop_cancelled(self) -> None:
        while self._timers and self._timers[0].cancelled:
            heapq.heappop(self._timers)

    def _run(self) -> None:
        while (timer := self._await_due()) is not None:
            timer.callback()

    def _await_due(self) -> PendingTimer | None:
        """The next timer whose time has come; None when the clock is closed."""
        while True:
            with self._lock:
                timer = self._next_due()
                if timer is not None or self._closed:
                    return None if self._closed else timer
                may_flow = bool(self._timers and self._quiet and not self._busy)
                begun = self._begun
                if self._changed.wait(QUIET_PACE if may_flow else None) or not may_flow:
                    continue
            if all(quiet() for quiet in self._quiet):
                with self._lock:
                    if self._timers and not self._busy and self._begun == begun:
                        self._drop_cancelled()
                        self._pass_to(self._timers[0].deadline if self._timers else self._now)

    def _next_due(self) -> PendingTimer | None:
        self._drop_cancelled()
        if not self._timers:
            return None
        if self._hung:
            self._pass_to(self._timers[0].deadline)
        return heapq.heappop(self._timers) if self._timers[0].deadline <= self._now else None


class RegisterDevice(Protocol):
    """What a virtual device offers its port."""

    def read32(self, offset: int) -> int: ...

    def write32(self, offset: int, value: int) -> None: ...


class InterruptLine:
    """Carries a device's interrupts to the driver's handlers, on the thread that the device runs on."""

    def __init__(self) -> None:
        self._handlers: dict[int, Callable[[], None]] = {}

    def connect(self, index: int, handler: Callable[[], None] | None) -> None:
        if handler is None:
            self._handlers.pop(index, None)
        else:
            self._handlers[index] = handler

    def fire(self, index: int = 0) -> None:
        """Devices call it with none of their own locks held; without a handler nothing happens."""
        handler = self._handlers.get(index)
        if handler is not None:
            handler()


class VirtualPort:
    """A `Port` whose device lives in this process."""

    def __init__(
        self,
        device: RegisterDevice,
        dma: AddressSpace,
        clock: VirtualClock,
        line: InterruptLine,
        lend: Callable[[int | None], bool] | None = None,
    ) -> None:
        """`lend` is the device's side of `Port.lend`, if it has one."""
        self._device = device
        self._line = line
        self._lend = lend
        self.dma = dma
        self.clock = clock

    def read32(self, offset: int) -> int:
        return self._device.read32(offset)

    def write32(self, offset: int, value: int) -> None:
        self._device.write32(offset, int(value) & 0xFFFFFFFF)  # flags are slow

    def on_interrupt(self, index: int, handler: Callable[[], None] | None) -> None:
        self._line.connect(index, handler)

    def lend(self, deadline: int | None) -> bool:
        return self._lend is not None and self._lend(deadline)


class PciRegisterDevice(Protocol):
    """What a virtual PCI device offers its port."""

    identity: PciIdentity
    bars: Mapping[int, BarInfo]
    vectors: int

    def read32(self, bar: int, offset: int) -> int: ...

    def write32(self, bar: int, offset: int, value: int) -> None: ...

    def lend(self) -> bool: ...

    def reset(self) -> None: ...


class VirtualPciPort:
    """A `PciDevice` that lives in this process."""

    def __init__(
        self,
        device: PciRegisterDevice,
        dma: AddressSpace,
        clock: VirtualClock,
        line: InterruptLine | None = None,
    ) -> None:
        """A device with no vectors needs no `line`."""
        self._device = device
        self._line = line or InterruptLine()
        self.identity = device.identity
        self.bars = device.bars
        self.vectors = device.vectors
        self.dma = dma
        self.clock = clock
        self._last_words = {bar: info.size - 4 for bar, info in device.bars.items()}

    def read32(self, bar: int, offset: int) -> int:
        if offset & 3 or not 0 <= offset <= self._last_words.get(bar, -1):
            raise no_word(bar, offset)
        return self._device.read32(bar, offset)

    def write32(self, bar: int, offset: int, value: int) -> None:
        if offset & 3 or not 0 <= offset <= self._last_words.get(bar, -1):
            raise no_word(bar, offset)
        self._device.write32(bar, offset, value & 0xFFFFFFFF)

    def on_interrupt(self, vector: int, handler: Callable[[], None] | None) -> None:
        if not 0 <= vector < self.vectors:
            raise OSError(errno.EINVAL, f"the device has no interrupt vector {vector}")
        self._line.connect(vector, handler)

    def lend(self) -> bool:
        return self._device.lend()

    def reset(self) -> None:
        self._device.reset()


def no_word(bar: int, offset: int) -> OSError:
    """What an access outside a BAR, or askew in it, fails with."""
    return OSError(errno.EINVAL, f"the device has no 32-bit word at BAR {bar} offset {offset:#x}")
