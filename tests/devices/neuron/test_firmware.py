# SPDX-License-Identifier: Apache-2.0
"""FWIO messages, good and bad, and what the firmware tells of the chip (facts, neuron.md §8, §12.5)."""

from __future__ import annotations

import struct

import pytest

from npubox.hw.neuron import address, fwio
from npubox.hw.neuron.fwio import Command, Error
from npubox.hw.neuron.misc_ram import MiscReg, Status
from tests.devices.neuron.bench import DATA, REQUEST, RESPONSE, Bench

MISC = address.MISC_RAM


def test_golden_read(bench: Bench) -> None:
    golden = bytes.fromhex("020110005c4ad1411ce078f0ff0f0000")
    assert bench.message(golden) == bytes.fromhex("0200080000000080")


def test_metrics(bench: Bench) -> None:
    golden = bytes.fromhex("020215006773e7930c01300d08322e32342e372e30")
    assert bench.message(golden) == bytes.fromhex("02000400")
    assert bench.chip.firmware.posts == [b"\x0c\x010\x0d\x082.24.7.0"]
    assert bench.message(fwio.pack_request(3, Command.POST_METRICS, bytes(129)))[1] == Error.FAIL


def test_any_target_and_none(bench: Bench) -> None:
    bench.chip.memory.write(0x5000, struct.pack("<I", 77))
    bench.host.memory[DATA : DATA + 4] = struct.pack("<I", 88)
    assert bench.read(0x5000, bench.host.address(DATA), 0x0FFF_0000_0000) == [77, 88, 0xDEADBEEF]
    assert bench.read() == []


@pytest.mark.parametrize(
    ("request_bytes", "error"),
    [
        (fwio.pack_read(9, MISC)[:-1] + b"\xff", Error.FAIL),
        (fwio.pack_request(9, 3, b""), Error.UNKNOWN_COMMAND),
        (fwio.pack_request(9, Command.READ, bytes(7)), Error.FAIL),
        (fwio.pack_read(9, MISC + 2), Error.FAIL),
        (struct.pack("<BBHI", 9, 1, 4, 0), Error.FAIL),
    ],
)
def test_bad_messages(bench: Bench, request_bytes: bytes, error: Error) -> None:
    assert bench.message(request_bytes) == fwio.pack_response(9, error)
    assert bench.read(MISC + MiscReg.STATUS)[0] & Status.READY


@pytest.mark.parametrize("register", [MiscReg.REQUEST_LO, MiscReg.RESPONSE_LO])
def test_buffers_that_are_not_there(bench: Bench, register: MiscReg) -> None:
    bench.read(MISC)
    bench.misc(register, 0x7F00_0000)
    bench.host.memory[RESPONSE] = 0
    bench.misc(MiscReg.DOORBELL, 1)
    assert bench.host.memory[RESPONSE] == 0
    assert bench.read(MISC + MiscReg.STATUS)[0] & Status.READY


def test_a_response_into_registers_is_refused(bench: Bench) -> None:
    bench.host.memory[REQUEST : REQUEST + 16] = fwio.pack_read(5, MISC)
    bench.misc(MiscReg.RESPONSE_LO, 0xF000_0000)
    bench.misc(MiscReg.RESPONSE_HI, address.APB >> 32)
    bench.misc(MiscReg.DOORBELL, 1)
    assert bench.read_apb(0) == 0


def test_as_many_reads_as_fit(bench: Bench) -> None:
    values = bench.read(*[MISC + MiscReg.STATUS] * fwio.MAX_ADDRESSES)
    assert set(values) == {int(Status.READY)}


def test_power(bench: Bench) -> None:
    """Utilisation of all engines since the last sample, a new one when 50 ms have passed."""
    assert bench.read(MISC + MiscReg.API_VERSION) == [3]
    assert bench.read(MISC + MiscReg.POWER) == [0]
    queue = bench.queue(0, 0, 8192)
    queue.copy(*((bench.host.address(DATA), 0, 65536) for _ in range(7000)))
    queue.wait()
    busy = bench.clock.now()
    assert busy > 50_000_000
    assert bench.read(MISC + MiscReg.POWER) == [1 << 16 | 10_000 // 12]
    bench.clock.sleep(busy)
    assert bench.read(MISC + MiscReg.POWER) == [2 << 16]
