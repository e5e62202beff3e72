# SPDX-License-Identifier: Apache-2.0
"""What the virtual Inferentia moves and answers, beside what the host does: python -m benchmarks.neuron

Ratios, from one run with rounds interleaved. A copy is timed from the doorbells to the marker that its last
descriptor writes, as the driver waits for it; memcpy moves the same pages. Both go on through buffers of
256 MiB, so that no cache holds them. The echo is a bare one: a process that sends back what it receives, as
many bytes as a register read and its reply have.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.devices.neuron.bench import DATA, RINGS, Bench, Queue

from npubox.bus.vfio_user.client import VfioUserDevice
from npubox.hw.neuron import misc_ram
from npubox.hw.neuron.descriptors import pack_rx, pack_tx
from npubox.hw.neuron.misc_ram import MiscReg
from npubox.hw.neuron.pci import Bar

MIB = 1 << 20
SIZES = (MIB, 4 * MIB, 16 * MIB, 64 * MIB)
BUFFER = 256 * MIB
PIECE = 65536
SMALL = 512
SMALL_COUNT = 2000
MARKER = RINGS - 0x100
RING = 8192
READS = 500
START = [sys.executable, "-c", "from npubox.cli.entry import main; main()"]
IDLE = """
import sys
from npubox.machines import open_preset
with open_preset(sys.argv[1]) as machine:
    print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))
"""


class Copier:
    """A queue, and the same pages as memcpy sees them."""

    def __init__(self) -> None:
        self.bench = Bench(host_size=BUFFER + DATA)
        self.queue = Queue(self.bench, 0, 0, RING, RINGS, RINGS + RING * 16)
        self._at = 0
        (area,) = self.bench.chip.bars[Bar.DRAM].areas
        self._dram = mmap.mmap(area.fd, BUFFER)
        self._from = ctypes.addressof(ctypes.c_char.from_buffer(self.bench.host.memory)) + DATA
        self._to = ctypes.addressof(ctypes.c_char.from_buffer(self._dram))
        ctypes.memset(self._from, 1, BUFFER)
        self.memcpy(BUFFER)
        for _ in range(BUFFER // SIZES[-1]):
            self.ring(SIZES[-1])

    def memcpy(self, size: int) -> float:
        at = self._advance(size)
        start = time.perf_counter()
        ctypes.memmove(self._to + at, self._from + at, size)
        return time.perf_counter() - start

    def ring(self, size: int) -> float:
        at = self._advance(size)
        return self._run([(at + n, at + n, PIECE) for n in range(0, size, PIECE)])

    def scattered(self) -> float:
        """Descriptors of which none continues the one before."""
        return self._run([(n * 2 * SMALL, n * 2 * SMALL, SMALL) for n in range(SMALL_COUNT)])

    def close(self) -> None:
        self.bench.close()

    def _run(self, pieces: list[tuple[int, int, int]]) -> float:
        host, memory = self.bench.host, self.bench.host.memory
        for source, to, size in pieces:
            self.queue.put(0, pack_tx(host.address(DATA + source), size, 0))
            self.queue.put(1, pack_rx(to, size, 0))
        memory[MARKER : MARKER + 8] = b"done" + bytes(4)
        self.queue.put(0, pack_tx(host.address(MARKER), 4, 0))
        self.queue.put(1, pack_rx(host.address(MARKER + 4), 4, 0))
        port, clock = self.bench.port, self.bench.clock
        start = time.perf_counter()
        self.queue.ring(len(pieces) + 1, len(pieces) + 1)
        while memory[MARKER + 4 : MARKER + 8] != b"done":
            if not port.lend():
                clock.sleep(1000)
        return time.perf_counter() - start

    def _advance(self, size: int) -> int:
        self._at = (self._at + size) % (BUFFER - size + 1) // PIECE * PIECE
        return self._at


def interleaved(rounds: int, *timed: Callable[[], float]) -> list[float]:
    """The median of each."""
    samples = [[one() for one in timed] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*samples, strict=True)]


def copies(rounds: int) -> dict[str, object]:
    copier = Copier()
    found: dict[str, object] = {}
    for size in SIZES:
        ring, memcpy = interleaved(rounds, lambda: copier.ring(size), lambda: copier.memcpy(size))  # noqa: B023
        found[f"copy {size // MIB} MiB / memcpy, rate"] = memcpy / ring
        found[f"copy {size // MIB} MiB, GB/s"] = size / ring / 1e9
    (scattered,) = interleaved(rounds, copier.scattered)
    found[f"scattered {SMALL}-byte descriptors a second"] = SMALL_COUNT / scattered
    copier.close()
    return found


def register_reads(rounds: int) -> dict[str, object]:
    """A register over vfio-user beside a bare echo, both of other processes, each way of sharing the CPUs."""
    cpus = sorted(os.sched_getaffinity(0))
    found = beside_echo(rounds, "one CPU", cpus[0], cpus[0])
    if len(cpus) > 1:
        found |= beside_echo(rounds, "two CPUs", cpus[0], cpus[-1])
    return found


def beside_echo(rounds: int, where: str, own_cpu: int, peer_cpu: int) -> dict[str, object]:
    """With both peers on `peer_cpu`: left to the scheduler they are put apart at random, and a wake-up of the
    other CPU costs more than all the rest."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "chip"
        command = [*START, "vfio-user", "inf1.xlarge", "--socket", str(path)]
        cpus = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {peer_cpu})  # children start with it
            with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
                echo, pid = bare_echo()
                os.sched_setaffinity(0, {own_cpu})
                assert server.stdout is not None
                server.stdout.readline()
                port = VfioUserDevice(str(path), "0000:00:1f.0")
                read, bare = interleaved(rounds, lambda: reads(port), lambda: echoes(echo))
                port.close()
                echo.close()
                os.waitpid(pid, 0)
                server.send_signal(signal.SIGTERM)
        finally:
            os.sched_setaffinity(0, cpus)
    return {
        f"register read over vfio-user / bare echo, {where}": read / bare,
        f"register read over vfio-user, {where}, us": read * 1e6,
    }


def reads(port: VfioUserDevice) -> float:
    bar, offset = int(Bar.APB), misc_ram.BASE + MiscReg.STATUS
    start = time.perf_counter()
    for _ in range(READS):
        port.read32(bar, offset)
    return (time.perf_counter() - start) / READS


def echoes(echo: socket.socket) -> float:
    """Of as many bytes as a register read's request and its reply are."""
    request = bytes(32)
    start = time.perf_counter()
    for _ in range(READS):
        echo.sendall(request)
        echo.recv(64)
    return (time.perf_counter() - start) / READS


def bare_echo() -> tuple[socket.socket, int]:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        while data := theirs.recv(64):
            theirs.sendall(data + bytes(4))
        os._exit(0)
    theirs.close()
    return ours, pid


def idle() -> dict[str, object]:
    done = subprocess.run([sys.executable, "-c", IDLE, "inf1.24xlarge"], capture_output=True, check=True)
    return {"16 idle chips with their driver, MB resident": int(done.stdout) / 1024}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.neuron", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21, help="samples of each (default 21)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = copies(options.rounds) | register_reads(options.rounds) | idle()
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        for name, value in found.items():
            print(f"{name:52} {value:12,.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
