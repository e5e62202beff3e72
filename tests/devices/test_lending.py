# SPDX-License-Identifier: Apache-2.0
"""Who carries a run: the thread that waits for it where there is one, else the NPU's own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from npubox.client.ethosu_accel import FOREVER
from npubox.devices.ethosu_npu.npu import VirtualNpu
from npubox.devices.ethosu_npu.program import Program
from npubox.devices.ethosu_npu.run import Injection, Run
from npubox.hw.ethosu.commands import Cmd0
from npubox.machines.machine import Machine
from tests.devices.bench import Bench, Bytes
from tests.devices.test_npu import cmd0
from tests.networks import MODELS, compiled_by_vela, shared_network

pytestmark = pytest.mark.shared

Carry = Callable[..., None]
Pieces = list[tuple[str, bool]]


def set_inputs(bench: Bench) -> None:
    bench.set_inputs(np.load(MODELS / "kws_dscnn_int8.npz")["input0_3"])


@pytest.fixture
def bench(machine: Machine) -> Iterator[Bench]:
    """The KWS network, which has been run once, so that its operations need no Python any more."""
    stream = compiled_by_vela(shared_network("kws_dscnn_int8").read_bytes(), "ethos-u65-256")
    bench = Bench(machine, stream)
    assert bench.run().fault is None
    set_inputs(bench)
    yield bench
    bench.close()


@pytest.fixture
def expected() -> Bytes:
    output: Bytes = np.load(MODELS / "kws_dscnn_int8.npz")["output0_3"].reshape(-1).view(np.uint8)
    return output


@pytest.fixture
def carriers(monkeypatch: pytest.MonkeyPatch) -> Pieces:
    """Of each piece of a run: the thread that carried it, and whether it ended it."""
    seen: Pieces = []
    carry: Carry = VirtualNpu._carry

    def watched(npu: VirtualNpu, run: Run, **how: Any) -> None:
        try:
            carry(npu, run, **how)
        finally:
            seen.append((threading.current_thread().name, run.over))

    monkeypatch.setattr(VirtualNpu, "_carry", watched)
    return seen


OWN = "npubox-ethos-u65-256"
HERE = "MainThread"


def ended(carriers: Pieces, runs: int) -> None:
    """So many runs have; that becomes known shortly after their jobs' end."""
    give_up = time.monotonic() + 30
    while sum(over for _, over in carriers) < runs and time.monotonic() < give_up:
        time.sleep(0.001)


def carried(carriers: Pieces, expected: Pieces) -> None:
    ended(carriers, sum(over for _, over in expected))
    assert carriers == expected


def expect_waiters(machine: Machine) -> None:
    """As after a program that has come for its jobs at once."""
    machine.npu._waiter_expected = True


def test_who_waits_carries_the_run(bench: Bench, machine: Machine, expected: Bytes, carriers: Pieces) -> None:
    expect_waiters(machine)
    assert bench.run().fault is None
    carried(carriers, [(HERE, True)])
    np.testing.assert_array_equal(bench.output(), expected)


def test_what_nobody_waits_for_is_done_all_the_same(
    bench: Bench, machine: Machine, expected: Bytes, carriers: Pieces
) -> None:
    expect_waiters(machine)
    for _ in range(2):
        set_inputs(bench)
        job = bench.submit()
        while machine.control.job(bench.client_id, job) is None:
            time.sleep(0.001)
        np.testing.assert_array_equal(bench.output(), expected)
    carried(carriers, [(OWN, True)] * 2)


def test_a_deadline_in_the_past_lends_nothing(bench: Bench, machine: Machine, carriers: Pieces) -> None:
    expect_waiters(machine)
    job = bench.submit()
    while not bench.poll():
        time.sleep(0.001)
    bench.wait(job)
    carried(carriers, [(OWN, True)])


def test_an_exception_of_a_signal_handler_loses_nothing(
    bench: Bench,
    machine: Machine,
    expected: Bytes,
    carriers: Pieces,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It comes where it hurts most: operations are done, and nobody has said so yet."""
    executed: list[tuple[int, int]] = []
    run = Program.run

    def interrupted(program: Program, first: int, last: int, *how: Any) -> int:
        done = run(program, first, last, *how)
        executed.append((first, done))
        if len(executed) == 1:
            raise KeyboardInterrupt
        return done

    expect_waiters(machine)
    monkeypatch.setattr(Program, "run", interrupted)
    job = bench.submit()
    with pytest.raises(KeyboardInterrupt):
        bench.wait(job)
    report = bench.wait(job)
    carried(carriers, [(HERE, False), (OWN, True)])
    assert report.fault is None
    assert report.end_ns - report.start_ns == report.cycles
    np.testing.assert_array_equal(bench.output(), expected)
    assert [first for first, _ in executed[1:]] == [done for _, done in executed[:-1]], "nothing runs twice"


def test_a_lent_thread_is_given_back_at_its_deadline(
    bench: Bench, machine: Machine, expected: Bytes, carriers: Pieces
) -> None:
    """The NPU sees the deadline pass after it has taken the thread."""
    expect_waiters(machine)
    job = bench.submit()
    assert machine.npu.lend(time.monotonic_ns() - 1)
    carried(carriers, [(HERE, False)])
    assert not machine.npu.lend(None), "the rest is left to the NPU's own thread"
    assert bench.wait(job).fault is None
    carried(carriers, [(HERE, False), (OWN, True)])
    np.testing.assert_array_equal(bench.output(), expected)


def test_new_streams_and_injected_faults_are_the_own_threads(
    bench: Bench, machine: Machine, carriers: Pieces
) -> None:
    expect_waiters(machine)
    machine.inject(Injection.HANG)
    fault = bench.run().fault
    assert fault is not None
    assert "reset while it ran" in fault.reason
    expect_waiters(machine)
    assert bench.run(cmd0(Cmd0.OP_PMU_MASK) + bench.npu.stream.words).fault is None
    ended(carriers, 2)
    assert (HERE, True) not in carriers


def test_many_threads_lend_in_turn(bench: Bench, machine: Machine, expected: Bytes) -> None:
    """Each on an open file and an arena of its own; some wait, some poll."""

    def work(number: int) -> None:
        own = Bench(machine, bench.network)
        for turn in range(50):
            set_inputs(own)
            job = own.submit()
            while (number + turn) % 3 == 0 and not own.poll():
                time.sleep(0)
            assert own.wait(job).fault is None
            np.testing.assert_array_equal(own.output(), expected)
        own.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_power_off_waits_for_a_lent_thread(
    bench: Bench, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, go_on = threading.Event(), threading.Event()
    run = Program.run

    def held(program: Program, *how: Any) -> int:
        inside.set()
        assert go_on.wait(30)
        return run(program, *how)

    monkeypatch.setattr(Program, "run", held)
    expect_waiters(machine)
    bench.submit()
    lender = threading.Thread(target=machine.npu.lend, args=(FOREVER,))
    lender.start()
    assert inside.wait(30)
    closing = threading.Thread(target=machine.npu.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive(), "the lent thread still works in device memory"
    go_on.set()
    closing.join(30)
    lender.join(30)
    assert not closing.is_alive()
