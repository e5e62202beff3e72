# SPDX-License-Identifier: Apache-2.0
"""Which operators Vela placed, and the check that a stream fits a device."""

from __future__ import annotations

import dataclasses

import pytest

from npubox.compiler.placement import Placement, check_made_for, operators_placed
from npubox.errors import ModelError
from npubox.formats.network import CommandStream, Network
from npubox.formats.payload import CONFIGURATIONS
from npubox.formats.tflite import read_network
from tests.networks import SHARED_NAMES, compiled_by_vela, float_output, fully_connected, shared_network

U55_128, U55_256, U65_256, U85_256 = 0x1807, 0x3008, 0x10003008, 0x20000118
NPU_ID, NPU_ID_U85 = 0x10066001, 0x20007000


@pytest.mark.parametrize("generator", [(), ("--debug-force-legacy-core",)])
@pytest.mark.parametrize("name", SHARED_NAMES)
def test_the_shared_networks_are_placed_whole(name: str, generator: tuple[str, ...]) -> None:
    source = read_network(shared_network(name))
    compiled = compiled_by_vela(source.content, "ethos-u65-256", *generator)
    assert operators_placed(source, compiled) == Placement(tuple(op.name for op in source.operators), ())


def test_operators_left_to_the_cpu() -> None:
    source = read_network(shared_network("kws_dscnn_int8"))
    compiled = compiled_by_vela(source.content, "ethos-u65-256", "--ignore-ops", "SOFTMAX")
    placement = operators_placed(source, compiled)
    assert placement.cpu == ("SOFTMAX",)
    assert placement.npu == tuple(op.name for op in source.operators if op.name != "SOFTMAX")


def test_operators_whose_tensors_have_no_name() -> None:
    source = read_network(shared_network("kws_dscnn_int8"))
    compiled = compiled_by_vela(source.content, "ethos-u65-256", "--ignore-ops", "SOFTMAX")
    placement = operators_placed(_nameless(source), _nameless(compiled))
    assert placement == operators_placed(source, compiled)


def test_an_operator_that_the_source_does_not_have_counts_as_the_cpus() -> None:
    source = read_network(shared_network("kws_dscnn_int8"))
    compiled = compiled_by_vela(source.content, "ethos-u65-256", "--ignore-ops", "SOFTMAX")
    (npu, softmax) = compiled.operators
    renamed = dataclasses.replace(compiled, operators=(npu, dataclasses.replace(softmax, name="CAST")))
    assert operators_placed(_nameless(source), _nameless(renamed)).cpu == ("CAST",)


def _nameless(network: Network) -> Network:
    tensors = tuple(dataclasses.replace(tensor, name="") for tensor in network.tensors)
    return dataclasses.replace(network, tensors=tensors)


@pytest.mark.parametrize("accelerator", ["ethos-u55-128", "ethos-u65-256"])
@pytest.mark.parametrize("generator", [(), ("--debug-force-legacy-core",)])
def test_a_float_output_stays_on_the_cpu(accelerator: str, generator: tuple[str, ...]) -> None:
    source = read_network(float_output())
    compiled = compiled_by_vela(source.content, accelerator, *generator)
    assert operators_placed(source, compiled) == Placement(("FULLY_CONNECTED",), ("DEQUANTIZE",))


def test_a_network_that_is_left_whole_to_the_cpu() -> None:
    source = read_network(fully_connected())
    compiled = compiled_by_vela(source.content, "ethos-u65-256", "--ignore-ops", "FULLY_CONNECTED")
    assert not compiled.compiled
    assert operators_placed(source, compiled) == Placement((), ("FULLY_CONNECTED",))


def stream(config: int, npu_id: int) -> CommandStream:
    return CommandStream(b"", config, npu_id, "COP1")


@pytest.mark.parametrize("config", CONFIGURATIONS)
def test_each_configuration_takes_its_own_and_no_other(config: int) -> None:
    def npu_id(of: int) -> int:
        return NPU_ID_U85 if of >> 28 == 2 else NPU_ID

    check_made_for(stream(config, npu_id(config)), config, npu_id(config))
    for other in CONFIGURATIONS.keys() - {config}:
        with pytest.raises(ModelError):
            check_made_for(stream(config, npu_id(config)), other, npu_id(other))


def test_the_sentence_says_what_to_type() -> None:
    with pytest.raises(ModelError) as caught:
        check_made_for(stream(U55_128, NPU_ID), U65_256, NPU_ID, "kws_vela.tflite")
    assert str(caught.value) == (
        "kws_vela.tflite was compiled for ethos-u55-128; this device is ethos-u65-256:"
        " compile the original, as it was before Vela, with `npubox compile --device ethos-u65-256`"
    )
    with pytest.raises(ModelError, match=r"--device ethos-u65-256`, or open ethos-u55-128 \(--device"):
        check_made_for(stream(U55_128, NPU_ID), U65_256, NPU_ID, others=["ethos-u55-128"])


def test_products_differ_though_their_sizes_are_equal() -> None:
    with pytest.raises(ModelError, match="for ethos-u55-256; this device is ethos-u65-256"):
        check_made_for(stream(U55_256, NPU_ID), U65_256, NPU_ID)


def test_legacy_ids_and_custom_dma_are_accepted() -> None:
    check_made_for(stream(U65_256, 0x10060000), U65_256 | 1 << 27, NPU_ID)


def test_a_newer_architecture_is_refused_an_older_one_taken() -> None:
    with pytest.raises(ModelError, match=r"of architecture 1\.1\.0; this device .* of architecture 1\.0\.6"):
        check_made_for(stream(U65_256, 0x10100000), U65_256, NPU_ID)
    check_made_for(stream(U65_256, 0x10000000), U65_256, NPU_ID)
