# SPDX-License-Identifier: Apache-2.0
"""Programs of /dev/neuron<N> under `npubox exec`."""

from __future__ import annotations

import pytest

from tests.serve.conftest import Compile, run


@pytest.mark.parametrize("options", [(), ("-static",)], ids=["dynamic", "static"])
def test_a_c_program(compiled: Compile, options: tuple[str, ...]) -> None:
    done = run(compiled("neuron", *options), options=["-m", "inf1.xlarge"])
    assert done.stdout == "all right\n"
