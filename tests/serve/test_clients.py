# SPDX-License-Identifier: Apache-2.0
"""Unmodified programs end to end: each gives the bits of the in-process path."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serve.conftest import Compile, run
from tests.serve.jobs import digits


@pytest.mark.parametrize("options", [(), ("-static",)], ids=["dynamic", "static"])
@pytest.mark.parametrize("tier", [(), ("--seccomp-only",)], ids=["namespace", "seccomp"])
def test_mesas_order_of_calls(
    compiled: Compile, tmp_path: Path, options: tuple[str, ...], tier: tuple[str, ...]
) -> None:
    job = digits()
    (tmp_path / "job").write_bytes(job.content)
    client = compiled("mesa_like", *options)
    run(client, "job", "out", options=tier, cwd=tmp_path)
    assert (tmp_path / "out").read_bytes() == job.expected


def test_many_threads_on_one_file(compiled: Compile, tmp_path: Path) -> None:
    job = digits()
    (tmp_path / "job").write_bytes(job.content)
    run(compiled("mesa_like"), "job", "out", "16", cwd=tmp_path)
    assert (tmp_path / "out").read_bytes() == job.expected * 16
