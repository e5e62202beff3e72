# SPDX-License-Identifier: Apache-2.0
"""The driver's register accesses and its bytes are the real module's (facts, neuron.md §6.6, §16)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from npubox.bus.virtual import VirtualPciPort
from npubox.hw.neuron import fwio
from npubox.hw.neuron.pci import Revision
from npubox.uapi import neuron as uapi
from npubox.uapi import neuron_structs as structs
from tests.devices.neuron.test_boot import engine_init
from tests.drivers.neuron.program import Machine, Program

Access = tuple[int, int]
ASK = [0x78E1F4, 0x78E1F0, 0x78E1FC, 0x78E1F8, 0x78E800]
RING, MEMCPY_TX, MEMCPY_RX = 8192, 0xD0000, 0xF0000


class Recorder:
    """Every BAR 0 access of the driver's: offset and value."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes: list[Access] = []
        self.reads = 0
        write, read = VirtualPciPort.write32, VirtualPciPort.read32

        def write32(port: VirtualPciPort, bar: int, offset: int, value: int) -> None:
            assert bar == 0
            self.writes.append((offset, value))
            write(port, bar, offset, value)

        def read32(port: VirtualPciPort, bar: int, offset: int) -> int:
            self.reads += 1
            return read(port, bar, offset)

        monkeypatch.setattr(VirtualPciPort, "write32", write32)
        monkeypatch.setattr(VirtualPciPort, "read32", read32)

    def take(self, count: int) -> list[Access]:
        taken, self.writes = self.writes[:count], self.writes[count:]
        return taken


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return Recorder(monkeypatch)


def queue_init(base: int, control: int, completion: int, ring: Access) -> Iterator[Access]:
    yield base + 0x20, 0x0300_0000
    yield base + control, 0x100
    yield base + 0x28, ring[0] & 0xFFFF_FFFF
    yield base + 0x2C, ring[0] >> 32
    yield base + 0x30, ring[1]
    yield base + completion, 0
    yield base + 0x20, 0x0303_0000


def core_init(core: int, rings: tuple[int, int], *, first: bool) -> Iterator[Access]:
    """The three engines of a core, and the driver's copy queue."""
    for engine in range(3 * core, 3 * core + 3):
        base = 0x4_0000 + core * 0x10_0000 + engine % 3 * 0x4_0000
        yield from ((base + offset, value) for offset, value in engine_init(first))
        wrapper = core * 0x10_0000 + engine % 3 * 0x1000
        yield from ((wrapper + 0x1C, 1), (wrapper + 0x20, 0xFFFF_FFFE), (wrapper, 1))
    base += 0x1_0000
    yield from queue_init(base, 0xB0, 0xA0, (rings[0], RING))
    yield from queue_init(base + 0x2_0000, 0x64, 0x54, (rings[1], RING))


def rings_of(machine: Machine) -> list[tuple[int, int]]:
    """Where the driver's own rings are, core by core."""
    rings = [
        chunk.pa for chunk in machine.driver.devices[0].memory if chunk.size == RING * 16 and not chunk.owner
    ]
    return list(zip(rings[::2], rings[1::2], strict=True))


@pytest.mark.parametrize("revision", [Revision.QEMU, Revision.SILICON])
def test_boot(recorder: Recorder, revision: Revision) -> None:
    with Machine(revision=revision) as machine:
        if revision is Revision.SILICON:
            assert recorder.take(2) == [(0x78E1EC, 1), (0x78E800, 1)]
            assert [offset for offset, _ in recorder.take(5)] == ASK
            assert machine.clock.now() >= 7_500_000_000
        asked = recorder.take(5)
        assert [offset for offset, _ in asked] == ASK
        assert asked[1][1] >> 14 == 1, "bit 46: host memory"
        assert recorder.take(1) == [(0x78E024, 0)]
        expected = [
            access
            for core, rings in enumerate(rings_of(machine))
            for access in core_init(core, rings, first=True)
        ]
        assert len(expected) == 1568
        assert recorder.writes == expected
        assert recorder.reads == 0


def test_reset_of_a_core(recorder: Recorder) -> None:
    with Machine(revision=Revision.SILICON) as machine:
        program = machine.program()
        recorder.writes.clear()
        before = machine.clock.now()
        request = structs.DeviceReset(nc_map=0b10)
        assert program.call(uapi.NC_RESET, request) == 0
        ready = structs.DeviceReady(request_id=request.request_id)
        assert program.call(uapi.NC_RESET_READY, ready) == 0
        assert machine.clock.now() - before >= 3_500_000_000
        assert recorder.take(3) == [(0x78E1D8, 0), (0x78E1EC, 2), (0x78E800, 1)]
        recorder.take(10)
        assert recorder.take(1) == [(0x78E024, 0)]
        assert recorder.writes == list(core_init(1, rings_of(machine)[1], first=False))
        program.close()


def test_messages(machine: Machine, program: Program) -> None:
    """The golden requests of the facts, as this driver's code packs them."""
    assert fwio.pack_read(2, 0x0FFF_F078_E01C).hex(" ") == "02 01 10 00 5c 4a d1 41 1c e0 78 f0 ff 0f 00 00"
    posted = bytes.fromhex("0c 01 30 0d 08 32 2e 32 34 2e 37 2e 30")
    request = fwio.pack_request(2, fwio.Command.POST_METRICS, posted)
    assert request.hex(" ") == "02 02 15 00 67 73 e7 93 " + posted.hex(" ")
    sequences = []
    for _ in range(260):
        program.call(uapi.SEMAPHORE_READ, structs.Semaphore())
        sequences.append(machine.driver.devices[0].fwio._sequence)
    assert 0 not in sequences
    assert {2, 255, 1} <= set(sequences)


def test_descriptors_of_a_copy(recorder: Recorder) -> None:
    """100000 bytes from host memory to DRAM: two pieces and the marker, as captured from the module."""
    with Machine() as machine:
        program = machine.program()
        host, device = program.alloc(1 << 17, host=True), program.alloc(1 << 17)
        recorder.writes.clear()
        program.copy(host, device, 100_000)
        assert recorder.writes == [(MEMCPY_RX + 0x38, 3), (MEMCPY_TX + 0x38, 3)]
        tx, rx = rings_of(machine)[0]
        memory = program.file.device.memory
        found = [memory.read(chunk, 0, 48) for chunk in (memory.at(tx), memory.at(rx)) if chunk is not None]
        source, destination = program.pa(host), program.pa(device)
        marker = int.from_bytes(found[0][40:48], "little")

        def at(address: int) -> str:
            return address.to_bytes(8, "little").hex(" ")

        assert found[0].hex(" ") == " ".join(
            [
                f"00 00 00 0d 03 00 08 01 {at(source)}",
                f"a0 86 00 4d 03 00 08 01 {at(source + 0x10000)}",
                f"04 00 00 0d 03 00 08 01 {at(marker)}",
            ]
        )
        assert found[1].hex(" ") == " ".join(
            [
                f"00 00 00 01 00 00 00 00 {at(destination)}",
                f"a0 86 00 01 00 00 00 00 {at(destination + 0x10000)}",
                f"04 00 00 01 00 00 00 00 {at(marker + 4)}",
            ]
        )
        program.close()


def test_the_drivers_ring_over_its_laps(machine: Machine, program: Program) -> None:
    """More descriptors than the ring has, batch by batch: ring ids 1, 2, 3, 0, 1."""
    size = 2000 * 65536
    source, destination = program.alloc(size), program.alloc(size, channel=1)
    queue = machine.driver.devices[0].copies[0]
    laps = []
    for turn in range(18):
        program.write(source, turn.to_bytes(4, "little"), size - 4)
        program.copy(source, destination, size)
        assert program.read(destination, 4, size - 4) == turn.to_bytes(4, "little")
        laps.append(queue._lap)
    assert list(dict.fromkeys(laps)) == [1, 2, 3, 0]
    assert laps[-1] == 1
