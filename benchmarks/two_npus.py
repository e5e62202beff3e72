# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.two_npus`: two networks on two NPUs behind one Cortex-M, at once and in turn.

Prints the wall time of both ways and how they compare; exit code 0 only if every output equals its oracle's.
How fast is never tested.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

import npubox
from benchmarks.networks import MADE, at_hand

MACHINE = "two-subsystems"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.two_npus", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="samples, of which the medians are taken")
    parser.add_argument("--runs", type=int, default=8, help="inferences of each network in a sample")
    parser.add_argument("--network", action="append", default=[], help="one of two; give it twice")
    options = parser.parse_args()
    subjects = at_hand()
    names = options.network or list(MADE)
    if len(names) != 2 or not set(names) <= subjects.keys():
        print(f"give --network twice, of {', '.join(subjects)}", file=sys.stderr)
        return 2
    with npubox.open(MACHINE) as device:
        jobs = []
        for name in names:
            subject = subjects[name]()
            jobs.append((device.load(subject.path), subject.inputs, subject.expected))

        def run_in_turn() -> bool:
            good = True
            for network, inputs, expected in jobs:
                for _ in range(options.runs):
                    with network.submit(*inputs) as inference:
                        good &= all(map(np.array_equal, inference.outputs, expected))
            return good

        def run_at_once() -> bool:
            good = True
            for _ in range(options.runs):
                started = [(network.submit(*inputs), expected) for network, inputs, expected in jobs]
                for inference, expected in started:
                    good &= all(map(np.array_equal, inference.outputs, expected))
                    inference.close()
            return good

        times: dict[Callable[[], bool], list[float]] = {run_in_turn: [], run_at_once: []}
        exact = True
        for _ in range(options.rounds):  # the two ways take turns: a noisy host disturbs them alike
            for way, samples in times.items():
                start = time.perf_counter()
                exact &= way()
                samples.append((time.perf_counter() - start) / options.runs * 1e3)
    turn, once = (statistics.median(samples) for samples in times.values())
    print(f"{' and '.join(names)} on {MACHINE}, {options.runs} of each a sample, median of {options.rounds}:")
    print(f"one after the other {turn:.1f} ms, at once on two NPUs {once:.1f} ms: {once / turn:.2f} of it")
    return 0 if exact else 1


if __name__ == "__main__":
    sys.exit(main())
