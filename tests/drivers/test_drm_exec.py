# SPDX-License-Identifier: Apache-2.0
"""drm_exec, as far as a driver lets it be seen: SUBMIT locks each object of a job once."""

from __future__ import annotations

import errno

from npubox.core.node import Node
from tests.core.refaccel import fails
from tests.drivers.fake_npu import FakePort, bo_create, cmdstream, job, submit
from tests.drivers.streams import copy, stream


def test_duplicates(node: Node, port: FakePort) -> None:
    move = cmdstream(node, stream(copy(0, 1, 16)))
    one = bo_create(node, 4096)
    with fails(errno.EALREADY):
        submit(node, job(move, r0=one, r1=one))
    assert port.runs == 0
