# SPDX-License-Identifier: Apache-2.0
"""Kernels run in a process of their own: what crashes there, and when it ends."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from npubox.errors import ModelError, NpuboxError
from npubox.fallback import process
from npubox.fallback.kernels import Kernels
from npubox.fallback.process import environment
from npubox.formats.network import Network
from npubox.formats.tflite import read_network
from tests.fallback.graphs import relus, slow_convolution, svdf_of_rank_0_beside_relu
from tests.fallback.processes import state, workers

Array = npt.NDArray[Any]
SIZES = (1000, 1_000_000)
STOPPED = "T"


@pytest.fixture
def kernels() -> Iterator[Kernels]:
    made = Kernels(NETWORK)
    yield made
    made.close()


NETWORK = read_network(relus(*SIZES))


def run(kernels: Kernels, value: int, at: int = 0, network: Network = NETWORK) -> Array:
    operator = network.operators[at]
    tensor = network.tensors[operator.inputs[0]]
    (made,) = kernels.run(operator, {tensor.index: np.full(tensor.shape, value, np.int8)}).values()
    return made


def right(made: Array, value: int) -> bool:
    return bool((made == max(value, 0)).all())


def until(true: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return true()


def stopped(kernels: Kernels) -> int:
    """The worker of the only kernels that have one, which from now on answers nothing."""
    run(kernels, 1)
    (pid,) = workers()
    os.kill(pid, signal.SIGSTOP)
    assert until(lambda: state(pid) == STOPPED)
    return pid


def test_a_crash_is_one_sentence_and_the_next_run_is_right() -> None:
    network = read_network(svdf_of_rank_0_beside_relu())
    svdf, relu = network.operators
    before = workers()
    kernels = Kernels(network)
    arrays = {
        i: np.zeros(network.tensors[i].shape, network.tensors[i].dtype)
        for i in svdf.inputs
        if network.tensors[i].data is None
    }
    for value in (1, 2):
        with pytest.raises(
            ModelError, match=r"^the kernel of CPU operator 0 \(SVDF\) crashed \(SIGFPE\), .*"
        ) as told:
            kernels.run(svdf, arrays)
        assert "\n" not in str(told.value)
        assert workers() == before
        assert right(run(kernels, value, relu.index, network), value)
    kernels.close()


def test_killed_in_the_middle_of_a_run(kernels: Kernels) -> None:
    pid = stopped(kernels)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, kernels, 2)
        time.sleep(0.1)
        assert not running.done()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ModelError, match=r"CPU operator 0 \(RELU\) crashed \(SIGKILL\)"):
            running.result(20)
    assert right(run(kernels, 3), 3)
    assert workers() != {pid}


def test_killed_between_runs_nobody_notices(kernels: Kernels) -> None:
    run(kernels, 1)
    run(kernels, 1, at=1)
    (pid,) = workers()
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # all its threads
    assert right(run(kernels, 5, at=1), 5)
    assert right(run(kernels, 4), 4)
    assert len(workers()) == 1
    assert workers() != {pid}


def test_an_interrupted_run_leaves_no_late_answer(kernels: Kernels) -> None:
    stopped(kernels)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(kernels, 6)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
    assert not workers()
    assert right(run(kernels, 7), 7)


def test_interrupts_of_the_terminal_are_not_the_workers(kernels: Kernels) -> None:
    run(kernels, 1)
    (pid,) = workers()
    os.kill(pid, signal.SIGINT)
    assert right(run(kernels, 2), 2)
    assert workers() == {pid}


def test_many_runs_in_one_process(kernels: Kernels) -> None:
    """Also after a bigger operator came, for which the memory had to grow."""
    for value in range(-100, 100):
        assert right(run(kernels, value), value)
        if value % 50 == 0:
            assert right(run(kernels, value, at=1), value)
    assert len(workers()) == 1


def test_two_networks_and_many_threads(kernels: Kernels) -> None:
    other = Kernels(NETWORK)
    both = (kernels, other)

    def work(value: int) -> bool:
        return right(run(both[value % 2], value, at=value % 3 == 0), value)

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(120)))
    assert len(workers()) == 2
    other.close()
    assert len(workers()) == 1
    assert right(run(kernels, 9), 9)


def test_nothing_is_left_behind() -> None:
    def once(close: bool) -> None:
        kernels = Kernels(NETWORK)
        for at in range(len(SIZES)):
            assert right(run(kernels, 1, at), 1)
        if close:
            kernels.close()
            kernels.close()

    once(close=True)
    gc.collect()
    files, processes = len(os.listdir("/proc/self/fd")), workers()
    for _ in range(4):
        once(close=True)
        assert workers() == processes
    once(close=False)
    gc.collect()
    assert workers() == processes
    assert len(os.listdir("/proc/self/fd")) == files


def test_closed_kernels_start_anew(kernels: Kernels) -> None:
    run(kernels, 1)
    kernels.close()
    assert not workers()
    assert right(run(kernels, 2), 2)


def test_no_process_without_a_run() -> None:
    Kernels(NETWORK)
    assert not workers()


PARENT = """
import os, sys, threading, time
import numpy as np
from npubox.fallback.kernels import Kernels
from npubox.formats.tflite import read_network
network = read_network(sys.stdin.buffer.read())
kernels = Kernels(network)
first, slow = network.operators
arrays = [np.zeros(network.tensors[o.inputs[0]].shape, np.int8) for o in network.operators]
kernels.run(first, {first.inputs[0]: arrays[0]})
print("ready", flush=True)
kernels.run(slow, {slow.inputs[0]: arrays[1]})
print("the slow operator was not slow", flush=True)
"""


def test_dies_with_a_killed_parent_even_inside_a_kernel() -> None:
    with subprocess.Popen(
        [sys.executable, "-P", "-c", PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(slow_convolution())
        parent.stdin.close()
        assert parent.stdout.readline() == b"ready\n"
        (pid,) = workers(parent.pid)
        busy = cpu_ticks(pid)
        assert until(lambda: cpu_ticks(pid) >= busy + 30)  # in the slow one by now
        parent.kill()
        assert parent.stdout.read() == b""
    assert until(lambda: state(pid) in ("", "Z"), 5)


def cpu_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def test_a_forked_child_leaves_the_parents_alone(kernels: Kernels) -> None:
    assert right(run(kernels, 1), 1)
    (pid,) = workers()
    child = os.fork()
    if not child:
        done = 1
        try:
            lifeline = os.readlink(f"/proc/{pid}/fd/0")  # held here too, the worker would outlive the parent
            held = [file.readlink() for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
            done = 0 if Path(lifeline) not in held and right(run(kernels, 8), 8) else 2
            kernels.close()
        finally:
            os._exit(done)
    assert os.waitpid(child, 0)[1] == 0
    assert right(run(kernels, 3), 3)
    assert workers() == {pid}


def test_a_python_that_cannot_start_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MODULE", "npubox.fallback.nothing")
    with pytest.raises(
        NpuboxError, match=r"the process for CPU operators does not start \(exit status 1: .*No module"
    ):
        run(Kernels(NETWORK), 1)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(NpuboxError, match="no process can be started for CPU operators"):
        run(Kernels(NETWORK), 1)
    assert not workers()


def test_threads_that_end_do_not_end_it(kernels: Kernels) -> None:
    thread = threading.Thread(target=run, args=(kernels, 1))
    thread.start()
    thread.join()
    (pid,) = workers()
    assert right(run(kernels, 2), 2)
    assert workers() == {pid}
