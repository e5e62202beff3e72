# SPDX-License-Identifier: Apache-2.0
"""A prepared job for the clients: the digits network as Vela compiles it, and the bits it has to give."""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import npubox
from npubox.client.regions import used_regions
from npubox.formats.network import Network
from tests.networks import compiled_by_vela

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
SRAM = 2


@dataclass(frozen=True)
class PreparedJob:
    """`content` is the file that clients read; `expected` the output bytes of the in-process path."""

    content: bytes
    expected: bytes


def pack(network: Network, values: bytes) -> bytes:
    """The job file of a network with one NPU operator, one input and one output."""
    (npu,) = (operator.npu for operator in network.operators if operator.npu is not None)
    constants = network.tensors[npu.read_only].data
    read_only = b"" if constants is None else constants.tobytes()
    source, target = network.tensors[network.inputs[0]], network.tensors[network.outputs[0]]
    sram = network.tensors[npu.scratch_fast].nbytes if SRAM in used_regions(npu.stream.words) else 0
    sizes = (len(npu.stream.words), len(read_only), network.arena_size, sram, source.nbytes, target.nbytes)
    offsets = (source.arena_offset or 0, target.arena_offset or 0)
    return struct.pack("<8I", *sizes, *offsets) + npu.stream.words + read_only + values


@functools.cache
def digits(index: int = 0) -> PreparedJob:
    """Unseen picture `index` of the digits."""
    content = (DIGITS / "digits.tflite").read_bytes()
    picture = np.load(DIGITS / "test.npz")["inputs"][index : index + 1]
    with npubox.open("imx93") as device, device.load(content) as network:
        output = network(picture)
    array = output[0] if isinstance(output, (tuple, list)) else output
    job = pack(compiled_by_vela(content, "ethos-u65-256"), picture.tobytes())
    return PreparedJob(job, np.asarray(array).tobytes())
