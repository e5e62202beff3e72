# SPDX-License-Identifier: Apache-2.0
"""Inferences over the queues: the oracle's bits, on the NPU, on the Cortex-M, and in between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from npubox.devices.ethosu_subsystem.configuration import Range
from npubox.fallback.verify import reference_outputs
from npubox.hw.ethosu import core_interface as ci
from npubox.hw.ethosu.core_interface import CoreStatus
from tests.client.graphs import float_edges, only_quantize
from tests.networks import SHARED_NAMES, compiled_by_vela, fully_connected, packed, shared_network, unpacked
from tests.subsystem.host import Host, by_index, configuration, in_buffer
from tests.vectors import DIGITS, Vector, digits_vectors, shared_vectors

Array = npt.NDArray[Any]
LEGACY = ("--debug-force-legacy-core",)


@pytest.fixture
def host() -> Iterator[Host]:
    with Host(configuration()) as booted:
        yield booted


def infer(host: Host, model: Range, inputs: Sequence[Array], expected: Sequence[Array]) -> list[Array]:
    """One inference from arrays to arrays like `expected`; a word of canary behind each output."""
    places = [host.put(array.tobytes()) for array in inputs]
    results = [host.allocate(array.nbytes + 4) for array in expected]
    for place in results:
        host.write(place, b"\xa5" * place.size)
    targets = [Range(place.address, place.size - 4) for place in results]
    answer = host.result(host.infer(in_buffer(model), places, targets))
    assert answer.status == CoreStatus.OK, host.reports[-1].reason
    assert list(answer.ofm_size[: answer.ofm_count]) == [array.nbytes for array in expected]
    content = [host.get(place) for place in results]
    assert all(data.endswith(b"\xa5" * 4) for data in content)
    return [
        np.frombuffer(data[:-4], array.dtype).reshape(array.shape)
        for data, array in zip(content, expected, strict=True)
    ]


def check(host: Host, content: bytes, vectors: Sequence[Vector]) -> None:
    model = host.put(content)
    for vector in vectors:
        for ours, theirs in zip(
            infer(host, model, vector.inputs, vector.outputs), vector.outputs, strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("accelerator", "extra"),
    [("ethos-u65-256", ()), ("ethos-u65-512", ()), ("ethos-u55-128", ()), ("ethos-u55-256", LEGACY)],
)
def test_digits(accelerator: str, extra: tuple[str, ...]) -> None:
    with Host(configuration(accelerator)) as host:
        content = compiled_by_vela((DIGITS / "digits.tflite").read_bytes(), accelerator, *extra).content
        check(host, content, digits_vectors(20))


@pytest.mark.shared
@pytest.mark.parametrize("accelerator", ["ethos-u65-256", "ethos-u55-128"])
@pytest.mark.parametrize("extra", [(), ("--separate-io-regions",)])
def test_the_newer_payload_with_regions_for_inputs_and_outputs(
    accelerator: str, extra: tuple[str, ...]
) -> None:
    source = shared_network("kws_dscnn_int8").read_bytes()
    content = compiled_by_vela(source, accelerator, "--cop-format", "COP2", *extra).content
    with Host(configuration(accelerator)) as host:
        check(host, content, shared_vectors("kws_dscnn_int8")[:3])


@pytest.mark.shared
@pytest.mark.parametrize("name", SHARED_NAMES)
@pytest.mark.parametrize("accelerator", ["ethos-u65-256", "ethos-u55-128"])
def test_shared_networks_with_state_from_the_start_each_time(name: str, accelerator: str) -> None:
    content = compiled_by_vela(shared_network(name).read_bytes(), accelerator).content
    with Host(configuration(accelerator)) as host:
        check(host, content, shared_vectors(name))


def test_a_network_that_vela_did_not_see_runs_on_the_cortex_m(host: Host) -> None:
    check(host, (DIGITS / "digits.tflite").read_bytes(), digits_vectors(3))
    assert all(report.cycles == 0 for report in host.reports)


@pytest.mark.parametrize("both", [False, True])
def test_operators_of_the_cortex_m_between_those_of_the_npu(host: Host, both: bool) -> None:
    content = float_edges(both=both)
    compiled = compiled_by_vela(content, "ethos-u65-256")
    assert [operator.name for operator in compiled.operators] == ["QUANTIZE", "ethos-u", "DEQUANTIZE"]
    real = np.linspace(-3, 3, 8, dtype=np.float32).reshape(1, 8)
    expected = reference_outputs(content, [real]).outputs
    check(host, compiled.content, [Vector([real], list(expected))])
    assert host.reports[-1].cycles


def test_nothing_for_the_npu(host: Host) -> None:
    real = np.linspace(-3, 3, 8, dtype=np.float32).reshape(1, 8)
    expected = reference_outputs(only_quantize(), [real]).outputs
    check(host, only_quantize(), [Vector([real], list(expected))])


def test_networks_of_the_firmwares_own_by_index() -> None:
    digits = compiled_by_vela((DIGITS / "digits.tflite").read_bytes(), "ethos-u65-256").content
    other = compiled_by_vela(fully_connected(), "ethos-u65-256").content
    (vector,) = digits_vectors(1)
    with Host(configuration(networks=(other, digits))) as host:
        place, result = host.put(vector.inputs[0].tobytes()), host.allocate(10)
        answer = host.result(host.infer(by_index(1), [place], [result]))
        assert answer.status == CoreStatus.OK
        assert host.get(result) == vector.outputs[0].tobytes()


def test_a_model_that_is_written_over_in_place_counts_at_once(host: Host) -> None:
    first = compiled_by_vela((DIGITS / "digits.tflite").read_bytes(), "ethos-u65-256").content
    (vector,) = digits_vectors(1)
    check(host, first, [vector])
    model = host.put(first)
    before = infer(host, model, vector.inputs, vector.outputs)
    changed = unpacked((DIGITS / "digits.tflite").read_bytes())
    (bias,) = (b for b in changed.buffers if b.data is not None and b.data.size == 40)
    bias.data = (bias.data.view(np.int32) + 2000 * np.arange(10, dtype=np.int32)).view(np.uint8)
    second = compiled_by_vela(packed(changed), "ethos-u65-256").content
    host.write(Range(model.address, len(second)), second)
    after = infer(host, Range(model.address, len(second)), vector.inputs, vector.outputs)
    np.testing.assert_array_equal(before[0], vector.outputs[0])
    assert (after[0] != before[0]).any()


def test_counters_of_the_last_npu_operator(host: Host) -> None:
    model = host.put(compiled_by_vela((DIGITS / "digits.tflite").read_bytes(), "ethos-u65-256").content)
    (vector,) = digits_vectors(1)
    place, result = host.put(vector.inputs[0].tobytes()), host.allocate(10)
    request = host.infer(in_buffer(model), [place], [result], events=[1, 6, 5, 200, 1, 6], cycles=True)
    answer = host.result(request)
    cycles = host.reports[-1].cycles
    assert list(answer.pmu_event_config) == [1, 6, 5, 0, 0, 0, 0, 0], "four counters, and no event 200"
    counts = list(answer.pmu_event_count)
    assert counts[0] == counts[2] == cycles
    assert 0 < counts[1] < cycles
    assert counts[3:] == [0] * 5
    assert (answer.pmu_cycle_counter_enable, answer.pmu_cycle_counter_count) == (1, cycles)
    answer = host.result(host.infer(in_buffer(model), [place], [result]))
    assert (answer.pmu_cycle_counter_enable, answer.pmu_cycle_counter_count) == (0, 0)
    assert not any(answer.pmu_event_count)


OUTSIDE = Range(0x5000_0000, 64)


@pytest.mark.parametrize(
    ("inputs", "outputs", "reason"),
    [
        ([], [Range(0, 10)], "has 1 inputs, the request 0"),
        ([Range(0, 64)], [], "has 1 outputs, the request 0"),
        ([Range(0, 63)], [Range(0, 10)], "has 64 bytes, the buffer given for it 63"),
        ([Range(0, 65)], [Range(0, 10)], "has 64 bytes, the buffer given for it 65"),
        ([Range(0, 64)], [Range(0, 9)], "has 10 bytes, the buffer given for it 9"),
        ([OUTSIDE], [Range(0, 10)], "nothing is mapped there"),
        ([Range(0, 64)], [Range(0x5000_0000, 10)], "nothing is mapped there"),
        ([Range(0, 64)], [Range(0x0800_0000, 10)], "mapped without WRITE permission"),
    ],
)
def test_buffers_that_do_not_fit(inputs: list[Range], outputs: list[Range], reason: str) -> None:
    digits = compiled_by_vela((DIGITS / "digits.tflite").read_bytes(), "ethos-u65-256").content
    with Host(configuration(networks=(digits,))) as host:
        home = host.allocate(4096).address
        own = [Range(place.address or home, place.size) for place in (*inputs, *outputs)]
        request = host.infer(by_index(0), own[: len(inputs)], own[len(inputs) :])
        assert host.result(request).status == CoreStatus.ERROR
        assert reason in (host.reports[-1].reason or "")
        check(host, digits, digits_vectors(1))


def test_more_buffers_than_a_message_holds(host: Host) -> None:
    request = ci.InferenceReq(user_arg=77, ifm_count=17, ofm_count=1, network=by_index(0))
    host.send(ci.MessageType.INFERENCE_REQ, request)
    assert host.result(77).status == CoreStatus.ERROR


def test_a_stream_for_another_npu(host: Host) -> None:
    content = compiled_by_vela((DIGITS / "digits.tflite").read_bytes(), "ethos-u55-128").content
    (vector,) = digits_vectors(1)
    model, place, result = host.put(content), host.put(vector.inputs[0].tobytes()), host.allocate(10)
    assert host.result(host.infer(in_buffer(model), [place], [result])).status == CoreStatus.ERROR
    assert "compiled for CONFIG 0x00001807" in (host.reports[-1].reason or "")


def test_a_model_off_its_alignment(host: Host) -> None:
    content = compiled_by_vela((DIGITS / "digits.tflite").read_bytes(), "ethos-u65-256").content
    (vector,) = digits_vectors(1)
    room = host.allocate(len(content) + 16)
    place, result = host.put(vector.inputs[0].tobytes()), host.allocate(10)
    for shift, status in ((4, CoreStatus.ERROR), (16, CoreStatus.OK)):
        model = Range(room.address + shift, len(content))
        host.write(model, content)
        assert host.result(host.infer(in_buffer(model), [place], [result])).status == status
    assert "16-byte boundary" in (host.reports[0].reason or "")


def test_an_arena_or_fast_memory_that_is_too_small() -> None:
    content = compiled_by_vela(shared_network("kws_dscnn_int8").read_bytes(), "ethos-u65-256").content
    vector = shared_vectors("kws_dscnn_int8")[0]
    for built, reason in (
        (replace(configuration(), arena=Range(0x2000_0000, 0x1000)), "needs an arena of"),
        (replace(configuration(), fast_memory=Range(0x1000_0000, 0x1000)), "bytes of fast memory"),
    ):
        with Host(built) as host:
            model, place = host.put(content), host.put(vector.inputs[0].tobytes())
            result = host.allocate(vector.outputs[0].nbytes)
            assert host.result(host.infer(in_buffer(model), [place], [result])).status == CoreStatus.ERROR
            assert reason in (host.reports[-1].reason or "")


def test_without_fast_memory_region_2_is_behind_the_arena() -> None:
    content = compiled_by_vela((DIGITS / "digits.tflite").read_bytes(), "ethos-u65-256").content
    with Host(replace(configuration(), fast_memory=None)) as host:
        check(host, content, digits_vectors(3))


@pytest.mark.parametrize("forgotten", ["model", "input", "output"])
def test_a_forgotten_flush_shows_where_caches_are_not_coherent(forgotten: str) -> None:
    content = compiled_by_vela((DIGITS / "digits.tflite").read_bytes(), "ethos-u65-256").content
    first, second = digits_vectors(2)
    with Host(configuration(), incoherent=True) as host:
        check(host, content, [first, second])
        model = host.put(content, sync=forgotten != "model")
        place = host.put(second.inputs[0].tobytes(), sync=forgotten != "input")
        result = host.allocate(10)
        answer = host.result(host.infer(in_buffer(model), [place], [result]))
        got = host.get(result, sync=forgotten != "output")
        assert answer.status == (CoreStatus.ERROR if forgotten == "model" else CoreStatus.OK)
        assert got != second.outputs[0].tobytes()
        host.dma.sync_for_device(model.address, model.size)
        host.dma.sync_for_device(place.address, place.size)
        host.result(host.infer(in_buffer(model), [place], [result]))
        assert host.get(result) == second.outputs[0].tobytes()
