# SPDX-License-Identifier: Apache-2.0
"""Running: what goes in and out, waiting in all its ways, failures that the ABI hides."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from npubox.client import Device, Network
from npubox.errors import CancelUnsupported, InputError, JobFailed, NpuboxError, WaitTimeout
from tests.client.fake_ethosu import FakeNode, Fault, Report


def image(value: int) -> np.ndarray:
    return np.full((1, 8, 8, 1), value, np.int8)


def result(value: int) -> list[list[int]]:
    return [[value + 1] * 10]


def test_arrays_in_and_out(network: Network) -> None:
    scores = network(image(5))
    assert isinstance(scores, np.ndarray)
    assert (str(scores.dtype), scores.shape) == ("int8", (1, 10))
    assert scores.tolist() == result(5)


def test_description(network: Network) -> None:
    (given,), (made,) = network.inputs, network.outputs
    assert (given.shape, str(given.dtype), given.zero_point) == ((1, 8, 8, 1), "int8", -128)
    assert given.scale == pytest.approx(1 / 255)
    assert (made.shape, str(made.dtype), made.scale, made.zero_point) == ((1, 10), "int8", 1 / 256, -128)
    assert (network.placement.npu, network.placement.cpu) == (("ethos-u",), ())


def test_job_names_its_buffers(node: FakeNode, network: Network) -> None:
    network(image(0))
    (job,) = node.jobs
    constants, arena, *others = job.region_bo_handles
    assert 0 != constants != arena != 0
    assert others == [0] * 6  # region 2 is on-chip SRAM, and nothing else is used
    assert job.sram_size > 0


def test_fast_scratch_is_memory_where_the_sram_is_too_small(
    node: FakeNode, open_fake: Callable[..., Device], digits: bytes
) -> None:
    node.sram_size = 64
    with open_fake(node) as device, device.load(digits) as network:
        network(image(0))
        (job,) = node.jobs
        graph = network._program.graph
        assert graph.operators[0].npu is not None
        needed = graph.tensors[graph.operators[0].npu.scratch_fast].nbytes
        assert job.sram_size == 0
        assert node.objects[job.region_bo_handles[2]].size == needed
    assert not node.objects


def test_constants_reach_the_device(node: FakeNode, network: Network) -> None:
    network(image(0))
    graph = network._program.graph
    assert graph.operators[0].npu is not None
    expected = graph.tensors[graph.operators[0].npu.read_only].data
    assert expected is not None
    weights = node.objects[node.jobs[0].region_bo_handles[0]]
    mapped = node.mmap(weights.size, 1, 1, weights.offset)
    assert mapped[:] == expected.tobytes()


def test_floats_are_quantised(network: Network) -> None:
    scores = network(np.full((1, 8, 8, 1), 10 / 255))
    assert isinstance(scores, np.ndarray)
    assert scores.tolist() == result(10 - 128)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ((), "takes 1 input(s) and got 0"),
        ((np.zeros((1, 8, 8, 1), np.int8),) * 2, "takes 1 input(s) and got 2"),
        ((np.zeros((8, 8), np.int8),), "give exactly [1, 8, 8, 1]"),
        ((np.zeros((1, 8, 8, 1), np.uint8),), "got uint8: give int8"),
        ((np.zeros((1, 8, 8, 1), np.int64),), "got int64: give int8"),
        ((np.full((1, 8, 8, 1), np.nan),), "NaN"),
    ],
)
def test_wrong_inputs(node: FakeNode, network: Network, inputs: tuple[np.ndarray, ...], words: str) -> None:
    with pytest.raises(InputError, match=words.replace("(", r"\(").replace(")", r"\)").replace("[", r"\[")):
        network(*inputs)
    assert not node.jobs


def test_wait_poll_and_time_out(node: FakeNode, network: Network) -> None:
    node.running.clear()
    with network.submit(image(1)) as inference:
        assert not inference.done
        with pytest.raises(WaitTimeout):
            inference.wait(timeout=0.01)
        with pytest.raises(TimeoutError):  # it is one of Python's own, too
            inference.wait(timeout=0)
        node.running.set()
        inference.wait(timeout=10)
        assert inference.done
        assert inference.outputs[0].tolist() == result(1)
        assert (inference.cycles, inference.device_time_ns) == (1000, 2000)


def test_cancel_says_that_the_abi_cannot(network: Network) -> None:
    with network.submit(image(1)) as inference, pytest.raises(CancelUnsupported):
        inference.cancel()


def test_await_many(network: Network) -> None:
    async def run() -> list[list[list[int]]]:
        inferences = [network.submit(image(i)) for i in range(8)]
        return [np.asarray(await inference).tolist() for inference in inferences]

    assert asyncio.run(run()) == [result(i) for i in range(8)]


def test_await_can_be_timed_out(node: FakeNode, network: Network) -> None:
    async def run() -> None:
        node.running.clear()
        inference = network.submit(image(3))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_finish(inference), 0.02)
        node.running.set()
        assert np.asarray(await inference).tolist() == result(3)

    async def _finish(inference: object) -> object:
        return await inference  # type: ignore[misc]

    asyncio.run(run())


def test_one_network_in_many_threads(network: Network) -> None:
    def run(value: int) -> list[list[int]]:
        return np.asarray(network(image(value))).tolist()  # type: ignore[no-any-return]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, range(100))) == [result(value) for value in range(100)]


def test_many_threads_wait_for_one_inference(node: FakeNode, network: Network) -> None:
    node.running.clear()
    inference = network.submit(image(4))
    with ThreadPoolExecutor(6) as pool:
        waits = [pool.submit(inference.wait, 10) for _ in range(6)]
        node.running.set()
        assert [wait.result() for wait in waits] == [None] * 6
    assert inference.outputs[0].tolist() == result(4)
    assert inference.cycles == 1000  # counted once


def test_failed_job_raises_although_the_wait_succeeds(node: FakeNode, network: Network) -> None:
    fault = Fault("reads outside what is mapped", "NPU_OP_CONV", 0x40, 0x8000_0000)
    node.outcome = lambda sequence: (
        Report(10, 0, 1, fault, errno.ECANCELED) if sequence == 0 else Report(9, 0, 1)
    )
    failed, fine = network.submit(image(1)), network.submit(image(2))
    for _ in range(2):  # it stays failed
        with pytest.raises(JobFailed, match="reads outside") as caught:
            failed.wait()
        assert (caught.value.command, caught.value.offset) == ("NPU_OP_CONV", 0x40)
        assert caught.value.address == 0x8000_0000
    assert failed.done
    with pytest.raises(JobFailed):
        _ = failed.outputs
    assert fine.outputs[0].tolist() == result(2)


def test_timed_out_job_raises(node: FakeNode, network: Network) -> None:
    node.outcome = lambda _: Report(10, 0, 1, None, errno.ECANCELED)
    with pytest.raises(JobFailed):
        network(image(1))


def test_wait_that_returns_early_is_not_believed(node: FakeNode, network: Network) -> None:
    """BO_WAIT answers 0 for a buffer that no fence is attached to; the job may not have run at all."""
    node.running.clear()
    inference = network.submit(image(1))
    arena = node.objects[node.jobs[0].region_bo_handles[1]]
    arena.jobs = 0
    with pytest.raises(JobFailed, match="has not finished it"):
        inference.wait()
    arena.jobs = 1


def test_interrupted_calls_are_restarted(node: FakeNode, network: Network) -> None:
    node.interruptions = 3
    assert np.asarray(network(image(1))).tolist() == result(1)


def test_real_hardware_has_no_control_channel(
    node: FakeNode, open_fake: Callable[..., Device], digits: bytes
) -> None:
    with open_fake(node, real=True) as device, device.load(digits) as network:
        with network.submit(image(1)) as inference:
            assert inference.outputs[0].tolist() == result(1)
            assert (inference.cycles, inference.device_time_ns) == (None, None)
        assert not device.virtual
        assert device.accelerator == "ethos-u65-256"


def test_own_arena(node: FakeNode, device: Device, network: Network) -> None:
    with device.buffer(network.arena_size) as arena:
        with network.submit(image(1), arena=arena) as inference:
            inference.wait()
        assert bytes(arena.data[:10]) == bytes([2] * 10)
        assert node.jobs[0].region_bo_handles[1] == arena.handle
        node.running.clear()
        inference = network.submit(image(1), arena=arena)
        with pytest.raises(InputError, match="still runs"):
            network.submit(image(1), arena=arena)
        node.running.set()
        inference.wait()
        network.submit(image(1), arena=arena).wait()
    with device.buffer(8) as small, pytest.raises(InputError, match="needs 64"):
        network.submit(image(1), arena=small)


def test_session_runs_in_order_in_one_arena(node: FakeNode, network: Network) -> None:
    with network.session() as session:
        node.running.clear()
        first = session.submit(image(1))
        second: list[object] = []
        thread = threading.Thread(target=lambda: second.append(session(image(2))))
        thread.start()
        assert len(node.jobs) == 1  # the second waits for the first: they share an arena
        node.running.set()
        thread.join(10)
        assert first.outputs[0].tolist() == result(1)
        assert np.asarray(second[0]).tolist() == result(2)
        arenas = {job.region_bo_handles[1] for job in node.jobs}
        assert len(arenas) == 1


def test_session_ends_what_was_closed_early(node: FakeNode, network: Network) -> None:
    with network.session() as session:
        node.running.clear()
        session.submit(image(1)).close()
        threading.Timer(0.05, node.running.set).start()
        assert np.asarray(session(image(2))).tolist() == result(2)
        assert len(node.reports) == 2


def test_failed_session_wants_a_reset(node: FakeNode, network: Network) -> None:
    node.outcome = lambda sequence: Report(1, 0, 1, None, errno.ECANCELED if sequence == 0 else 0)
    with network.session() as session:
        with pytest.raises(JobFailed):
            session(image(1))
        with pytest.raises(NpuboxError, match="reset"):
            session(image(1))
        session.reset()
        assert np.asarray(session(image(1))).tolist() == result(1)
