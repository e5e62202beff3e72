# SPDX-License-Identifier: Apache-2.0
"""Random mutation of command streams and constants, below the driver: `python -m tests.devices.fuzz`.

The NPU gets damaged streams that no validator has seen, in memory between unmapped guard pages, so a
stray access ends the process. Whatever it executes must leave the memory that the plain interpreter
leaves; everything else must be a reported fault. With NUMBA_BOUNDSCHECK=1 the kernels check their
array indices as well. Prints how the runs ended.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from npubox.bus import virtual
from npubox.bus.port import Prot
from npubox.devices.ethosu_npu.configuration import CONFIGURATIONS
from npubox.devices.ethosu_npu.faults import Fault, RunReport
from npubox.devices.ethosu_npu.npu import VirtualNpu
from npubox.formats.network import Network
from npubox.hw.ethosu.registers import Cmd, Reg
from tests import plain
from tests.devices.bench import npu_operator
from tests.networks import compiled_by_vela

CORPUS = Path(__file__).parents[1] / "corpus" / "networks"
# No two of them a few flipped bits apart, so that a damaged address does not hit another region.
STREAM, BASES = 0x1F_3A5C_7000, {0: 0x29_C6B1_3000, 1: 0x75_1D8E_A000, 2: 0xE2_F047_5000}
TIME_OUT = 500_000_000
RESET_NON_SECURE = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
MAP_FIXED = 0x10


def guarded(fd: int, size: int, flags: int, prot: int, offset: int) -> Any:
    """Like mmap.mmap, between two pages that nobody may touch; never unmapped."""
    page = mmap.PAGESIZE
    reserve = _libc.mmap(None, size + 2 * page, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    address = _libc.mmap(reserve + page, size, prot, flags | MAP_FIXED, fd, offset)
    assert address == reserve + page
    return (ctypes.c_uint8 * size).from_address(address)


class Watch:
    """The NPU's observer, and a driver's time-out: a hung run is reset."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.report: RunReport | None = None

    def run_started(self) -> None:
        self.done.clear()

    def run_ignored(self, fault: Fault) -> None:
        raise AssertionError(fault)

    def run_finished(self, report: RunReport) -> None:
        self.report = report
        self.done.set()


class Target:
    """One network's stream, constants, arena and fast scratch, mapped for a bare NPU."""

    def __init__(self, network: Network, accelerator: str) -> None:
        operator = npu_operator(network)
        self.words = operator.stream.words
        self.config = operator.stream.config
        self._dma = virtual.AddressSpace()
        self._clock = virtual.VirtualClock()
        self._watch = Watch()
        self._npu = VirtualNpu(
            CONFIGURATIONS[accelerator],
            self._dma,
            self._clock,
            virtual.InterruptLine(),
            10**9,
            self._watch,
        )
        data = network.tensors[operator.read_only].data
        constants = data if data is not None else np.zeros(0, np.uint8)
        fast = (
            network.tensors[operator.scratch_fast].nbytes if operator.scratch_fast != operator.scratch else 0
        )
        self.stream = self._map(STREAM, len(self.words))
        self.regions = {
            0: self._map(BASES[0], constants.size),
            1: self._map(BASES[1], network.arena_size),
            2: self._map(BASES[2], fast),
        }
        self.regions[0][: constants.size] = constants
        self._constants = constants

    def _map(self, address: int, size: int) -> npt.NDArray[np.uint8]:
        size = -(-max(size, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
        fd = os.memfd_create("npubox-fuzz")
        os.ftruncate(fd, size)
        self._dma.map(address, fd, 0, size, Prot.READ | Prot.WRITE)
        return np.frombuffer(self._dma.find(address, size).memory, np.uint8)

    def run(self, rng: np.random.Generator) -> str:
        """Damage stream and constants, run, compare; how it ended."""
        words = bytearray(self.words)
        for _ in range(int(rng.integers(1, 5))):
            words[rng.integers(len(words))] ^= 1 << int(rng.integers(8))
        self.stream[: len(words)] = np.frombuffer(bytes(words), np.uint8)
        self.regions[0][: self._constants.size] = self._constants
        if self._constants.size and rng.random() < 0.5:
            self.regions[0][rng.integers(self._constants.size)] ^= rng.integers(1, 256)
        self.regions[1][:] = rng.integers(0, 256, self.regions[1].size)
        before = {n: region.copy() for n, region in self.regions.items()}
        report = self._start(len(words))
        if report.fault is None:
            expected = {n: region.copy() for n, region in before.items()}
            plain.run(bytes(words), expected, self.config)
            self._compare(expected, "first run")
        # Once more: the first run was Python's, now the steps are rows of a program.
        after = {n: region.copy() for n, region in self.regions.items()}
        for n, region in self.regions.items():
            region[:] = before[n]
        again = self._start(len(words))
        assert (again.fault and again.fault.reason) == (report.fault and report.fault.reason)
        if report.fault is not None:
            return "hung" if "reset" in report.fault.reason else "faulted"
        self._compare(after, "second run")
        return "executed"

    def _compare(self, expected: dict[int, npt.NDArray[np.uint8]], what: str) -> None:
        for n, region in self.regions.items():
            np.testing.assert_array_equal(region, expected[n], f"{what}, region {n}")

    def _start(self, size: int) -> RunReport:
        npu = self._npu
        npu.write32(Reg.RESET, RESET_NON_SECURE)
        npu.write32(Reg.QSIZE, size)
        bases = {Reg.BASEP0 + 8 * region: base for region, base in BASES.items()}
        for register, address in {int(Reg.QBASE): STREAM, **bases}.items():
            npu.write32(register, address & 0xFFFFFFFF)
            npu.write32(register + 4, address >> 32)
        timer = self._clock.call_at(
            self._clock.now() + TIME_OUT, lambda: npu.write32(Reg.RESET, RESET_NON_SECURE)
        )
        npu.write32(Reg.CMD, Cmd.RUN)
        assert self._watch.done.wait(300), "the NPU neither ends nor lets its time-out pass"
        timer.cancel()
        assert self._watch.report is not None
        return self._watch.report

    def close(self) -> None:
        self._npu.close()
        self._clock.close()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--runs", type=int, default=60, help="for each network and accelerator")
    arguments.add_argument("--networks", nargs="*", default=[])
    chosen = arguments.parse_args()
    setattr(mmap, "mmap", guarded)  # noqa: B010 - which the bus then maps with
    ends: Counter[str] = Counter()
    for name in chosen.networks:
        content = (CORPUS / f"{name}.tflite").read_bytes()
        for accelerator in ("ethos-u65-256", "ethos-u55-128", "ethos-u65-512"):
            target = Target(compiled_by_vela(content, accelerator), accelerator)
            rng = np.random.default_rng(chosen.seed)
            for number in range(chosen.runs):
                try:
                    ends[target.run(rng)] += 1
                except BaseException as error:
                    error.add_note(f"{name} on {accelerator}, seed {chosen.seed}, run {number}")
                    raise
            target.close()
    print(" ".join(f"{kind}={count}" for kind, count in sorted(ends.items())))


if __name__ == "__main__":
    main()
