# SPDX-License-Identifier: Apache-2.0
"""Many threads in waits on sync objects: none lost, none early, none stuck, and none awake meanwhile."""

from __future__ import annotations

import ctypes
import errno
import gc
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from npubox.core.drm.device import DrmDevice
from npubox.core.node import Node, own_caller
from npubox.core.pending import Pending
from npubox.uapi import drm_syncobj as uapi
from npubox.uapi.drm_syncobj import WaitFlag
from tests.core.descriptors import open_descriptors
from tests.core.fuzz import Fuzzer, check_released, two_devices
from tests.core.refaccel import fails, open_node
from tests.core.syncobjs import EVER, MS, SECOND, create, reset, signal, signal_point, u32s, wait

THREADS = 64
ROUNDS = 12
FOR_SUBMIT, ALL = WaitFlag.FOR_SUBMIT, WaitFlag.ALL


def in_threads(work: Callable[[int], None], count: int = THREADS) -> None:
    """Run `work` with each number on a thread of its own; what one raises is raised, none may be stuck."""
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads), "a wait is stuck"
    if failures:
        raise failures[0]


def test_every_signal_reaches_its_waiter(node: Node) -> None:
    """Half of the threads wait, each for its own object, and the other half signal them."""
    handles = [create(node) for _ in range(THREADS // 2)]
    turns = [threading.Semaphore(0) for _ in handles]

    def work(number: int) -> None:
        handle, turn, dice = handles[number // 2], turns[number // 2], random.Random(number)
        for point in range(1, ROUNDS + 1):
            if number % 2:
                time.sleep(dice.random() / 200)
                signal_point(node, handle, point)
                turn.acquire()
            else:
                assert wait(node, [handle], [point], timeout=EVER, flags=FOR_SUBMIT) in (0, uapi.NO_INDEX)
                turn.release()

    in_threads(work)
    assert node.device._waits == set()


def test_one_signal_wakes_everybody(node: Node) -> None:
    shared, own = create(node), [create(node) for _ in range(THREADS)]

    def work(number: int) -> None:
        if number == 0:
            while len(node.device._waits) < THREADS - 1:
                time.sleep(0.001)
            signal(node, shared)
        else:
            assert wait(node, [own[number], shared], timeout=EVER, flags=FOR_SUBMIT) == 1

    in_threads(work)


def test_time_outs_among_signals_are_never_early(node: Node) -> None:
    """Each thread waits for all of two objects; one of them only the lucky get."""
    handles = [create(node) for _ in range(THREADS)]

    def work(number: int) -> None:
        dice = random.Random(number)
        for _ in range(ROUNDS):
            lucky, patience = dice.random() < 0.5, dice.randrange(1, 20) * MS
            start = time.monotonic_ns()
            if lucky:
                timer = threading.Timer(patience / 2e9, signal, (node, handles[number]))
                timer.start()
                wait(node, [handles[number]], timeout=100 * SECOND, flags=FOR_SUBMIT | ALL)
                timer.join()
            else:
                with fails(errno.ETIME):
                    wait(node, [handles[number]], timeout=patience, flags=FOR_SUBMIT | ALL)
                assert time.monotonic_ns() - start >= patience
            reset(node, handles[number])

    in_threads(work)


def test_cancelled_waits_leave_the_others_alone(node: Node) -> None:
    handle = create(node)
    array = u32s([handle])
    arguments = [
        uapi.SyncobjWait(
            handles=ctypes.addressof(array), timeout_nsec=EVER, count_handles=1, flags=FOR_SUBMIT
        )
        for _ in range(THREADS)
    ]
    calls: list[Pending] = []
    for args in arguments:
        call = node.file.ioctl(uapi.SYNCOBJ_WAIT.number, ctypes.addressof(args), own_caller())
        assert isinstance(call, Pending)
        calls.append(call)

    def work(number: int) -> None:
        if number % 2:
            threading.Timer(0.01, calls[number].cancel).start()
            with fails(errno.EINTR):
                calls[number].wait()
        elif number == 0:
            while not all(call.done for call in calls[1::2]):
                time.sleep(0.001)
            signal(node, handle)
        else:
            assert calls[number].wait() == 0

    in_threads(work)
    assert calls[0].wait() == 0


def test_idle_waiting_costs_nothing(device: DrmDevice) -> None:
    """Threads in waits, with and without a time-out, are not scheduled until something happens."""
    with open_node(device) as node:
        handle = create(node)
        threads: list[int] = []

        def work(number: int) -> None:
            threads.append(threading.get_native_id())
            wait(node, [handle], timeout=EVER if number % 2 else 1000 * SECOND, flags=FOR_SUBMIT)

        waiting = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
        for thread in waiting:
            thread.start()
        while len(device._waits) < THREADS:
            time.sleep(0.001)
        assert any(asleep(threads) for _ in range(20)), "threads that wait are run all the time"
        signal(node, handle)
        for thread in waiting:
            thread.join(60)
            assert not thread.is_alive()


def asleep(threads: list[int]) -> bool:
    """Whether none of the threads ran for a while. On a busy host some may still be on their way to sleep."""
    before = [switches(thread) for thread in threads]
    time.sleep(0.4)
    return [switches(thread) for thread in threads] == before


def switches(thread: int) -> tuple[str, ...]:
    """How often a thread gave up or lost the CPU."""
    status = Path(f"/proc/self/task/{thread}/status").read_text("ascii")
    return tuple(line for line in status.splitlines() if "ctxt_switches" in line)


def test_random_calls_leave_nothing() -> None:
    """In a process of its own, where no other test lets go of descriptors meanwhile."""
    command = [sys.executable, "-m", "tests.core.fuzz", "--calls", "5000", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stdout + done.stderr
    _, answers, left = done.stdout.splitlines()
    assert {"0", "EINVAL", "ENOENT", "EFAULT", "ENOTTY", "EACCES"} <= set(answers.replace(",", "").split())
    descriptors, memory = map(int, re.findall(r"(-?\d+) (?:descriptors|KiB)", left))
    assert descriptors == 0
    assert memory < 8 << 10


def test_random_calls_of_several_threads_leave_nothing() -> None:
    gc.collect()
    descriptors, devices = open_descriptors(), two_devices()
    fuzzers = [Fuzzer(seed, devices) for seed in range(6)]
    in_threads(lambda number: fuzzers[number].run(500), len(fuzzers))
    for fuzzer in fuzzers:
        fuzzer.close()
    check_released(devices)
    assert open_descriptors() == descriptors
