# SPDX-License-Identifier: Apache-2.0
"""The vendor's module's register accesses, replayed (facts, neuron.md §6.6, §16; qemu-vfio-user.md §6.1)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from npubox.hw.neuron import address, misc_ram, udma
from npubox.hw.neuron.misc_ram import MiscReg
from npubox.hw.neuron.pci import Revision
from tests.devices.neuron.bench import DATA, Bench

ALL = 0xFFFFFFFF
MISC = address.MISC_RAM


def engine_init(first: bool) -> Iterator[tuple[int, int]]:
    """The 123 writes, as offsets from the engine's base."""
    cfg = 0x0003_0000 if first else 0x0303_0000
    for queue in range(16):
        yield 0x1020 + queue * 0x1000, cfg
        yield 0x21020 + queue * 0x1000, cfg
    yield from ((0x310, 0x01000400), (0x124, 0x20808080), (0x3A300, 0x05F5E100), (0x408, 0))
    yield from ((0x254, 0x010FFFFF), (0x258, 0x102))
    yield from ((0x3C400 + queue * 0x40, ALL) for queue in range(16))
    yield 0x2038C, 0
    yield from ((0x3C400 + queue * 0x40 + word, ALL) for queue in range(16) for word in (4, 8, 12))
    yield from ((0x20124, 0x00400080), (0x20128, 0x40804080), (0x3B460, 1))
    yield from ((0x3A028, 0x28), (0x380E8, 0x28), (0x3A030, 0xF0000000), (0x3A0B0, 0xFFFFFFC0))
    yield from ((0x3A018, 0xF0000000), (0x3A098, 0xFFFFFFC0), (0x380D8, 0xFFFFFAFF))
    yield from ((0x3A068, 0x28), (0x380E8, 0x28), (0x3A070, 0x10F8), (0x3A0B0, 0xFFFFF03F))
    yield from ((0x3A058, 0x10F8), (0x3A098, 0xFFFFF03F), (0x380D8, 0xFFFFF9FF))
    yield from ((0x20380, 0x1004), (0x304, 0x10080), (0x308, 0x8081))


def initialise(bench: Bench, first: bool = True) -> int:
    """All engines and the driver's four queues, in the module's order. Returns the number of writes."""
    count = 0
    for core in range(4):
        for engine in range(3 * core, 3 * core + 3):
            for offset, value in engine_init(first):
                bench.apb(udma.engine_base(engine) + offset, value)
                count += 1
            for offset, value in ((0x1C, 1), (0x20, 0xFFFFFFFE), (0x00, 1)):
                bench.apb(udma.tdma_base(engine) + offset, value)
                count += 1
        bench.queue(udma.memcpy_engine(core), udma.MEMCPY_QUEUE)
        count += 14
    return count


def device_reset(bench: Bench) -> None:
    bench.misc(MiscReg.RESET, misc_ram.Reset.DEVICE)
    bench.misc(MiscReg.DOORBELL, 1)
    assert bench.read(MISC + MiscReg.RESET) == [0]
    assert bench.read(MISC + MiscReg.STATUS)[0] & misc_ram.Status.READY


@pytest.mark.parametrize("revision", [Revision.SILICON, Revision.QEMU])
def test_probe_as_the_module_does_it(revision: int) -> None:
    bench = Bench(revision)
    if revision == Revision.SILICON:
        device_reset(bench)
    else:
        assert bench.read(MISC + MiscReg.STATUS)[0] & misc_ram.Status.READY
    bench.misc(MiscReg.DEVICE_ID, 0)
    assert initialise(bench) == 1568
    assert bench.port.identity.revision == revision
    queue = bench.queue(udma.memcpy_engine(0), udma.MEMCPY_QUEUE, 8192)
    bench.host.memory[DATA : DATA + 8] = b"inferred"
    queue.copy((bench.host.address(DATA), 0x1000, 8), (0x1000, bench.host.address(DATA + 8), 8))
    queue.wait()
    assert bench.host.memory[DATA + 8 : DATA + 16] == b"inferred"
    assert not bench.chip.faults
    bench.close()


def test_what_was_written_reads_back(bench: Bench) -> None:
    """But for pointers and what only acts, such as CAUSE and the queue's reset."""
    initialise(bench)
    base = udma.engine_base(5)
    for offset, value in dict(engine_init(first=True)).items():
        assert bench.read_apb(base + offset) == (0x0303_0000 if offset in (0x10020, 0x30020) else value)
    assert bench.read_apb(base + udma.EngineReg.DMA_VERSION) == 4
    assert bench.read_apb(udma.tdma_base(5) + 0x20) == 0xFFFFFFFE
    assert bench.read_apb(base + 0x10030) == 64
    assert bench.read_apb(base + udma.m2s_queue(15) + udma.QueueReg.M2S_SW_CTRL) == 0


def test_a_device_reset_clears_queues_and_misc_ram_but_not_dram(bench: Bench) -> None:
    queue = bench.queue(0, 0)
    bench.host.memory[DATA : DATA + 4] = b"kept"
    queue.copy((bench.host.address(DATA), 0x5000, 4))
    queue.wait()
    bench.misc(MiscReg.DEVICE_ID, 7)
    device_reset(bench)
    assert bench.read(MISC + MiscReg.DEVICE_ID) == [0]
    assert bench.read_apb(queue.m2s + udma.QueueReg.RING_LENGTH) == 0
    assert bench.chip.memory.read(0x5000, 4) == b"kept"


def test_a_core_reset_leaves_queues_alone(bench: Bench) -> None:
    """The driver writes the map 0: the chip cannot know the core (§10.1)."""
    queue = bench.queue(3, 4)
    bench.misc(MiscReg.TPB_RESET_MAP, 0)
    bench.misc(MiscReg.RESET, misc_ram.Reset.TPB)
    bench.misc(MiscReg.DOORBELL, 1)
    assert bench.read(MISC + MiscReg.RESET) == [0]
    bench.host.memory[DATA : DATA + 4] = b"more"
    queue.copy((bench.host.address(DATA), 0x5000, 4))
    queue.wait()
    assert bench.chip.memory.read(0x5000, 4) == b"more"


def test_unmapped_registers_are_ignored(bench: Bench) -> None:
    bench.apb(0x7F_F000, 1)
    assert bench.read_apb(0x7F_F000) == 0xDEADBEEF
    with pytest.raises(OSError, match="no 32-bit word"):
        bench.port.read32(0, 8 << 20)
    with pytest.raises(OSError, match="no 32-bit word"):
        bench.port.write32(1, 0, 0)
    with pytest.raises(OSError, match="no 32-bit word"):
        bench.port.read32(0, 2)
