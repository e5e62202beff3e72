# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator

import pytest

from npubox.drivers.misc.neuron.policy import Policy
from tests.drivers.neuron.program import Machine, Program


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine() as powered:
        yield powered


@pytest.fixture
def program(machine: Machine) -> Iterator[Program]:
    opened = machine.program()
    yield opened
    opened.close()


@pytest.fixture
def as_module() -> Iterator[Program]:
    """A program on a driver that answers as the kernel module does."""
    with Machine(policy=Policy.MODULE) as powered:
        opened = powered.program()
        yield opened
        opened.close()
