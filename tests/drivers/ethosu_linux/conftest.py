# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.drivers.ethosu_linux.calls import Plugged
from tests.drivers.ethosu_linux.fake_subsystem import FakeSubsystem, Program, plugged


@pytest.fixture
def subsystem() -> Iterator[Plugged]:
    with plugged() as made:
        yield made
        assert made[1].objects == 0, "something was not freed"
        assert not made[0].dma.mapped


@pytest.fixture
def program(subsystem: Plugged) -> Iterator[Program]:
    made = Program(subsystem[1])
    yield made
    made.exit()


@pytest.fixture
def port(subsystem: Plugged) -> FakeSubsystem:
    return subsystem[0]
