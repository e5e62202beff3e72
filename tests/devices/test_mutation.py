# SPDX-License-Identifier: Apache-2.0
"""Damaged weights and command streams: computed exactly as written, or refused aloud."""

from __future__ import annotations

import errno
from collections import Counter

import numpy as np
import pytest

from npubox.machines.machine import Machine
from tests import plain
from tests.devices.bench import Bench, Bytes, npu_operator, weight_ranges
from tests.networks import MODELS, compiled_by_vela, shared_network

DEVICE = "ethos-u65-256"
FLIPS = 32  # a network; 64 in all
PICTURES = (0, 3, 5)


def test_flipped_weight_bytes(machine: Machine) -> None:
    """After a first run decoded weights are remembered: a flipped byte must still count, at once."""
    ends: Counter[str] = Counter()
    for name in ("kws_dscnn_int8", "ic_resnet8_int8"):
        ends += _flip_weight_bytes(machine, name)
    assert ends.total() == 2 * FLIPS
    assert ends["differs"] >= FLIPS, ends


def _flip_weight_bytes(machine: Machine, name: str) -> Counter[str]:
    """Flip FLIPS bytes, one at a time; how many make PICTURES fault, give the same outputs, or others."""
    network = compiled_by_vela(shared_network(name).read_bytes(), DEVICE)
    vectors = np.load(MODELS / f"{name}.npz")
    pictures = [vectors[f"input0_{n}"] for n in PICTURES]
    bench = Bench(machine, network)
    original = [_run_like_plain(bench, picture, "untouched") for picture in pictures]
    constants = network.tensors[bench.npu.read_only].data
    assert constants is not None
    ranges = weight_ranges(network)
    rng = np.random.default_rng(2026)
    ends: Counter[str] = Counter()
    for _ in range(FLIPS):
        chosen = ranges[rng.integers(len(ranges))]
        at = chosen[int(rng.integers(len(chosen)))]
        bench.constants[1][at] ^= rng.integers(1, 256)
        what = f"{name}, byte {at} = {bench.constants[1][at]:#x}"
        outputs = [_run_like_plain(bench, picture, what) for picture in pictures]
        ends["fault" if None in outputs else "same" if outputs == original else "differs"] += 1
        bench.constants[1][at] = constants[at]
    assert [_run_like_plain(bench, picture, "restored") for picture in pictures] == original
    return ends


def _run_like_plain(bench: Bench, picture: Bytes, what: str) -> bytes | None:
    """Run once, and demand the plain interpreter's arena or, where it refuses, a reported fault (None)."""
    bench.set_inputs(picture)
    regions = {0: bench.constants[1].copy(), 1: bench.arena[1].copy(), 2: bench.sram()}
    report = bench.run()
    refusal = None
    try:
        plain.run(bench.npu.stream.words, regions, bench.npu.stream.config)
    except (plain.Refused, plain.Fault) as error:
        refusal = error
    if refusal is not None:
        assert report.fault is not None, f"{what}: plain refuses it: {refusal}"
        assert report.error == errno.ECANCELED
        return None
    assert report.fault is None, f"{what}: {report.fault}"
    np.testing.assert_array_equal(bench.arena[1], regions[1], what)
    return bench.output().tobytes()


@pytest.mark.parametrize("name", ["kws_dscnn_int8", "hello_world_int8"])
def test_corrupted_command_streams(machine: Machine, name: str) -> None:
    """Rejected by the driver, faulted by the NPU, or executed exactly as written."""
    network = compiled_by_vela(shared_network(name).read_bytes(), DEVICE)
    words = npu_operator(network).stream.words
    picture = np.load(MODELS / f"{name}.npz")["input0_3"]
    bench = Bench(machine, network)
    rng = np.random.default_rng(65)
    ends: Counter[str] = Counter()
    for _ in range(250):
        changed = bytearray(words)
        for _ in range(int(rng.integers(1, 3))):
            changed[rng.integers(len(words))] ^= 1 << int(rng.integers(8))
        stream = bytes(changed)
        bench.set_inputs(picture)
        regions = {0: bench.constants[1].copy(), 1: bench.arena[1].copy(), 2: bench.sram()}
        try:
            report = bench.run(stream)
        except OSError as error:
            ends[errno.errorcode[error.errno or 0]] += 1
            continue
        if report.fault is not None or report.error:
            assert report.fault is not None
            assert report.fault.reason
            ends["faulted"] += 1
            continue
        plain.run(stream, regions, bench.npu.stream.config)
        np.testing.assert_array_equal(bench.arena[1], regions[1])
        ends["executed"] += 1
    assert set(ends) <= {"EINVAL", "ENOENT", "EOVERFLOW", "faulted", "executed"}, ends
    assert {"EINVAL", "faulted", "executed"} <= set(ends), ends
    bench.set_inputs(picture)
    assert bench.run().fault is None
