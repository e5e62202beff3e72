# SPDX-License-Identifier: Apache-2.0
"""Store inputs beside each network of the corpus, and what its oracle answers.

    python -m tests.corpus.make_vectors [NAME ...]

Four vectors: uniform noise, all minimum, all maximum, normal around the middle. Where the other reference
kernels answer something else this prints how many outputs differ and by how much.
"""

from __future__ import annotations

import sys
import zlib

import numpy as np

from npubox.formats.network import Tensor
from npubox.formats.tflite import read_network
from tests.corpus import oracles
from tests.corpus.cases import NAMES, Array, Case, content_of, oracle_of, store

SPREAD = 1 / 8  # of the normal vector, as a share of the type's range


def stacked(tensor: Tensor, random: np.random.Generator) -> Array:
    """The four vectors of one input."""
    limits = np.iinfo(tensor.dtype)
    middle, spread = (limits.max + limits.min + 1) / 2, (limits.max - limits.min) * SPREAD
    normal = np.clip(np.rint(random.normal(middle, spread, tensor.shape)), limits.min, limits.max)
    noise = random.integers(limits.min, limits.max, tensor.shape, tensor.dtype, endpoint=True)
    return np.stack(
        [
            noise,
            np.full(tensor.shape, limits.min, tensor.dtype),
            np.full(tensor.shape, limits.max, tensor.dtype),
            normal.astype(tensor.dtype),
        ]
    )


def answered(oracle: str, content: bytes, inputs: list[Array]) -> list[Array]:
    """The oracle's outputs, each tensor's stacked."""
    vectors = oracles.outputs(oracle, content, list(zip(*inputs, strict=True)))
    return [np.stack(tensor) for tensor in zip(*vectors, strict=True)]


def difference(ours: list[Array], theirs: list[Array]) -> str:
    gaps = np.concatenate([np.ravel(a.astype(np.int64) - b) for a, b in zip(ours, theirs, strict=True)])
    return f"{np.count_nonzero(gaps)} of {gaps.size} differ by up to {abs(gaps).max()}" if gaps.any() else ""


def make(name: str) -> Case:
    content, oracle = content_of(name), oracle_of(name)
    network = read_network(content)
    random = np.random.default_rng(zlib.crc32(name.encode()))
    inputs = [stacked(network.tensors[index], random) for index in network.inputs]
    if oracle == oracles.PLAIN:
        return Case(name, content, oracle, inputs, [])
    outputs = answered(oracle, content, inputs)
    for other in (oracles.TFLITE_MICRO, oracles.LITERT_REF, oracles.LITERT_OPTIMISED, oracles.LITERT_XNNPACK):
        try:
            differs = difference(outputs, answered(other, content, inputs))
        except Exception as error:
            differs = str(error)
        if differs:
            print(f"{name}: {oracle}, while {other}: {differs}", flush=True)
    return Case(name, content, oracle, inputs, outputs)


if __name__ == "__main__":
    for chosen in sys.argv[1:] or NAMES:
        store(make(chosen))
