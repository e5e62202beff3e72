# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator

import pytest

from npubox.machines import open_preset
from npubox.machines.machine import Machine


@pytest.fixture
def machine() -> Iterator[Machine]:
    with open_preset("imx93") as powered:
        yield powered
