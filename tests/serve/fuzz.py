# SPDX-License-Identifier: Apache-2.0
"""Ioctls at random, made from the declarations: python fuzz.py DEVICE SEED COUNT prints each answer.

DEVICE is a preset, then the calls go the in-process way, or a node. The same seed makes the same calls.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import random
import sys

from npubox.client.node import open_node
from npubox.uapi import drm, ethosu_accel
from npubox.uapi.drm_numbers import MODESET_NUMBERS, NUMBERS

ROOM = 1 << 16
BASE = 0x2000_0000_0000  # at the same place in each process
FIXED = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10_0000
LARGEST = 1 << 14
SHOWN = 256
BAD_POINTERS = (0, 8, 1 << 47, (1 << 64) - 8, 0xFFFF_8000_0000_0000)
LIMITS = (0, 1, 2, 3, 12, 16, 40, 4095, 4096, 4097, 0x7FFF_FFFF, 0xFFFF_FFFF)
DECLARATIONS = (*drm.IOCTLS, *ethosu_accel.IOCTLS)
POINTERS = ("name", "date", "desc", "unique", "pointer", "data", "jobs")
SIZES = ("size", "job_count")
PRIME = (drm.PRIME_HANDLE_TO_FD.number & 0xFF, drm.PRIME_FD_TO_HANDLE.number & 0xFF)


class Fuzzer:
    """`scratch` is memory that pointers may lead to."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        libc = ctypes.CDLL(None)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
        # Beyond the room lies memory that nobody may touch: what runs past the end must be EFAULT.
        libc.mmap(BASE, 2 * ROOM, 0, FIXED, -1, 0)
        libc.mprotect(ctypes.c_void_p(BASE), ctypes.c_size_t(ROOM), mmap.PROT_READ | mmap.PROT_WRITE)
        self.scratch = memoryview((ctypes.c_char * ROOM).from_address(BASE)).cast("B")
        # A number may claim more bytes than there are: they must not be anybody's heap.
        memory = mmap.mmap(-1, LARGEST)
        self.argument = memoryview(memory)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self.exported = -1
        self.shows_descriptor = False

    def struct(self, kind: type[ctypes.Structure]) -> bytearray:
        made = kind()
        for field in kind._fields_:
            name, type_ = field[:2]
            if issubclass(type_, ctypes._SimpleCData):
                setattr(made, name, self._value(name, ctypes.sizeof(type_)))
        return bytearray(made)

    def _value(self, name: str, size: int) -> int:
        if name in POINTERS and size == 8:
            if self._random.random() < 0.7:
                return BASE + self._random.randrange(0, ROOM - 4096, 4)
            return self._random.choice(BAD_POINTERS)
        if name in SIZES:
            return self._random.choice(LIMITS[:10])
        if name == "fd":
            return self._random.choice((-1, 0, self.exported))
        if name == "timeout_ns":
            return self._random.choice((0, 1, -1))
        if self._random.random() < 0.7:
            return self._random.randrange(4)
        return self._random.choice(LIMITS)

    def call(self) -> tuple[int, bytearray]:
        """A request and its argument."""
        dice = self._random
        self.shows_descriptor = False
        if dice.random() < 0.15:
            numbers = [number for number, _ in NUMBERS.values()] + list(MODESET_NUMBERS.values())
            return dice.choice(numbers), bytearray(dice.randbytes(SHOWN))
        declaration = dice.choice(DECLARATIONS)
        number, data = declaration.number, self.struct(declaration.struct)
        self.shows_descriptor = declaration.struct is drm.PrimeHandle
        if dice.random() < 0.15:  # another size
            size = dice.choice((0, 4, 8, 12, 24, 64, 200))
            number = number & ~(0x3FFF << 16) | size << 16
        if dice.random() < 0.1:  # another direction
            number = number & 0x3FFF_FFFF | dice.randrange(4) << 30
        if dice.random() < 0.03:
            number = dice.getrandbits(32) & 0xFFFF_00FF | 0x6400
        return number, data + bytes(SHOWN - len(data))

    def fill(self) -> None:
        """New content for the scratch memory: random, but often what a command stream begins with."""
        self.scratch[:4096] = self._random.randbytes(4096)


def main(device: str, seed: int, count: int) -> None:
    fuzzer = Fuzzer(seed)
    opened = open_node(device)
    for index in range(count):
        if index % 50 == 0:
            fuzzer.fill()
        number, data = fuzzer.call()
        argument = fuzzer.argument
        argument[:] = bytes(data) + bytes(LARGEST - SHOWN)
        try:
            answer = str(opened.node.ioctl(number, fuzzer.address))
        except OSError as error:
            answer = f"errno {error.errno}"
        data[:] = argument[:SHOWN]
        if number & 0xFFFF == drm.GET_CLIENT.number & 0xFFFF:
            data[8:16] = bytes(8)  # the process id
        if fuzzer.shows_descriptor or number & 0xFF in PRIME:
            fd = int.from_bytes(data[8:12], "little", signed=True)
            if answer == "0" and fd > 2 and number & 0xFF == PRIME[0]:
                fuzzer.exported = fd  # and stay open, as nothing says when their memory would be free
            data[8:12] = bytes(4)  # the descriptor
        digest = hashlib.sha256(bytes(data) + bytes(fuzzer.scratch)).hexdigest()[:12]
        print(f"{number:#010x} {answer} {digest}")
    opened.close()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
