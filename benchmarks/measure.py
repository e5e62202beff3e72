# SPDX-License-Identifier: Apache-2.0
"""Timing: what happens once is shown apart; warm runs of all runtimes are interleaved, medians taken."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import numpy as np

import npubox
from benchmarks.apart import peak_memory
from benchmarks.networks import Arrays, Subject
from benchmarks.runtimes import Run, other_runtimes
from npubox.compiler.vela import compile_network

T = TypeVar("T")

OURS = "npubox"
BATCH_SECONDS = 0.01  # a sample is the mean of as many runs as take this long


@dataclass
class Result:
    """Milliseconds, and MB of memory. `once` are steps before the first warm run; `warm` medians by runtime,
    of `rounds` samples each; `absent` the reasons of runtimes that do not run the network."""

    network: str
    exact: bool
    cycles: int | None
    cpu_operators: tuple[str, ...]
    once: dict[str, float]
    warm: dict[str, float]
    rounds: int
    peak_mb: float
    absent: dict[str, str] = field(default_factory=dict)

    def ratio(self, over: str, under: str) -> float | None:
        """How many times the warm time of `under` the one of `over` is."""
        if over not in self.warm or under not in self.warm:
            return None
        return self.warm[over] / self.warm[under]

    def as_json(self) -> dict[str, Any]:
        ratios = {
            f"{OURS} / {name}": self.ratio(OURS, name) for name in (*self.warm, *self.absent) if name != OURS
        }
        return asdict(self) | {"ratios": ratios}


def measure(subject: Subject, device: npubox.Device, rounds: int, threads: int) -> Result:
    """Time one network on `device` and on every other runtime that takes it."""
    once: dict[str, float] = {}
    _timed(once, "Vela", lambda: compile_network(subject.path, device.accelerator, cache=False))
    device.load(subject.path).close()  # fills the cache of compiled networks, so that `load` is load alone
    network = _timed(once, "load", lambda: device.load(subject.path))

    def run() -> Arrays:
        with network.submit(*subject.inputs) as inference:
            return inference.outputs

    with network:
        outputs = _timed(once, "first run", run)
        exact = all(np.array_equal(got, want) for got, want in zip(outputs, subject.expected, strict=True))
        others = other_runtimes(subject, threads)
        runs = {OURS: run} | {name: other for name, other in others.items() if not isinstance(other, str)}
        warm = interleaved(runs, rounds)
        with network.submit(*subject.inputs) as inference:
            cycles = inference.cycles
        return Result(
            network=subject.name,
            exact=exact,
            cycles=cycles,
            cpu_operators=network.placement.cpu,
            once=once,
            warm=warm,
            rounds=rounds,
            peak_mb=peak_memory(device.name, subject.path),
            absent={name: other for name, other in others.items() if isinstance(other, str)},
        )


def interleaved(runs: dict[str, Run], rounds: int) -> dict[str, float]:
    """The median of `rounds` samples of each run, in milliseconds; one sample of each in every round."""
    batches = {name: max(1, int(BATCH_SECONDS / _seconds(run, 3))) for name, run in runs.items()}
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            samples[name].append(_seconds(run, batches[name]) * 1e3)
    return {name: statistics.median(values) for name, values in samples.items()}


def _seconds(run: Run, times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - started) / times


def _timed(into: dict[str, float], name: str, action: Callable[[], T]) -> T:
    started = time.perf_counter()
    result = action()
    into[name] = (time.perf_counter() - started) * 1e3
    return result
