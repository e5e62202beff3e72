# SPDX-License-Identifier: Apache-2.0
"""Random networks of one operator on virtual NPUs, equal to the reference kernels bit for bit.

The same examples every time; NPUBOX_EXAMPLES=500 draws so many fresh ones an operator and type.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import npubox
from npubox.formats.tflite import read_network
from tests.corpus import oracles
from tests.corpus.single_operators import BUILDERS, Single, single
from tests.corpus.vela import compiled

DEVICES = ("ethos-u55-128", "ethos-u65-256", "ethos-u65-512")
EXAMPLES = os.environ.get("NPUBOX_EXAMPLES")


@pytest.fixture(scope="module")
def devices() -> Iterator[dict[str, npubox.Device]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(npubox.open(name)) for name in DEVICES}


@pytest.mark.parametrize(
    ("name", "dtype"), [(name, str(dtype)) for name, (_, dtypes) in BUILDERS.items() for dtype in dtypes]
)
def test_single_operator(devices: dict[str, npubox.Device], name: str, dtype: str) -> None:
    @settings(
        max_examples=int(EXAMPLES or 6),
        derandomize=EXAMPLES is None,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(network=single(name, np.dtype(dtype)), accelerator=st.sampled_from(DEVICES))
    def check(network: Single, accelerator: str) -> None:
        file = compiled(network.content, accelerator)
        assume(all(operator.npu is not None for operator in read_network(file).operators))
        expected = oracles.outputs(network.oracle, network.content, network.vectors)
        with devices[accelerator].load(file) as loaded:
            for k, vector in enumerate(network.vectors):
                with loaded.submit(*vector) as inference:
                    for ours, theirs in zip(inference.outputs, expected[k], strict=True):
                        np.testing.assert_array_equal(ours, theirs, f"vector {k}", strict=True)

    check()
