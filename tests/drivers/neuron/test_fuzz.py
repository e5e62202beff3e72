# SPDX-License-Identifier: Apache-2.0
"""Any argument of any ioctl: an errno or an answer, never another exception, and the device lives on."""

from __future__ import annotations

import ctypes
import mmap
import random

import pytest

from npubox.core.pending import Pending
from npubox.drivers.misc.neuron.policy import Policy
from npubox.hw.neuron.udma import ChangeState
from npubox.uapi import neuron as uapi
from npubox.uapi.ioctl import Dir, encode
from tests.drivers.neuron.program import Machine

CALLS = 2000
WORDS = (0, 1, 2, 3, 4, 5, 7, 8, 12, 15, 16, 31, 32, 64, 255, 256, 4096, 8192, 65536, 1 << 20)
ADDRESSES = (
    0,
    0x1000,
    1 << 36,
    1 << 46,
    (1 << 46) + 0x1000_0000,
    3 << 46,
    0x0FFF_C000_0000,
    0x0FFF_F078_E01C,
)
EDGES = (0xFFFF_FFFF, 0x8000_0000, 0xFFFF_FFFF_FFFF_FFFF, 1 << 63, (1 << 63) - 1)
ROOM = 64 << 20
"""Bytes that the calls may write to: an argument, and where its pointers lead. Not the interpreter's own."""


@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize("isolate", [False, True], ids=["faithful", "isolate"])
def test_any_argument_of_any_ioctl(policy: Policy, isolate: bool) -> None:
    rng = random.Random(f"{policy} {isolate}")
    room = mmap.mmap(-1, ROOM)
    argument = ctypes.addressof(ctypes.c_char.from_buffer(room))
    scratch = argument + ROOM // 2
    with Machine(2, policy=policy, isolate=isolate) as machine:
        programs = [machine.program(index % 2) for index in range(3)]
        answered = 0
        for _ in range(CALLS):
            program, ioctl = rng.choice(programs), rng.choice(uapi.IOCTLS)
            values = [rng.choice((*WORDS, *WORDS, *ADDRESSES, *EDGES, scratch, scratch)) for _ in range(64)]
            raw = b"".join(value.to_bytes(8, "little")[: rng.choice((4, 8))] for value in values)
            room[: ctypes.sizeof(ioctl.struct)] = raw.ljust(1 << 14, b"\0")[: ctypes.sizeof(ioctl.struct)]
            try:
                address = argument if rng.random() < 0.97 else 0
                result = program.file.ioctl(ioctl.number, address, program.caller)
            except OSError:
                continue
            answered += 1
            if isinstance(result, Pending) and not result.done:
                result.cancel()  # a lock or a core that nobody gives up
        assert answered > CALLS // 10
        for program in programs:
            program.close()
        last = machine.program()
        for engine in range(12):  # programs may disable engines, which resets do not enable
            machine.driver.devices[0].engines.change_state(engine, ChangeState.NORMAL)
        machine.driver.devices[0].copies[0].reset()  # and the module lets them take its queues
        handle = last.alloc(4096)
        last.write(handle, b"alive")
        assert last.read(handle, 5) == b"alive"
        last.close()


def test_any_number(machine: Machine) -> None:
    """Numbers that are none, and those that the nr alone decides: EINVAL or what the right one answers."""
    program = machine.program()
    room = mmap.mmap(-1, ROOM)
    address = ctypes.addressof(ctypes.c_char.from_buffer(room))
    rng = random.Random(5)
    for _ in range(3000):
        direction = Dir(rng.randrange(4))
        number = encode(
            direction, rng.choice("NNNd"), rng.randrange(256), rng.choice((0, 1, 8, 16, 24, 40, 56))
        )
        try:
            result = program.file.ioctl(number, address, program.caller)
        except OSError:
            continue
        assert number >> 8 & 0xFF == ord("N")
        if isinstance(result, Pending):
            result.cancel()
    program.close()
