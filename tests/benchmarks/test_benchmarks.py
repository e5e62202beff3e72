# SPDX-License-Identifier: Apache-2.0
"""The benchmark command runs and compares; how fast is never tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.report import machine, write

ROOT = Path(__file__).parents[2]


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", "--rounds", "1", *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_json_holds_times_ratios_and_exactness() -> None:
    done = run("--network", "digits", "--json")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    (result,) = report["results"]
    assert result["exact"] is True
    assert result["cycles"] > 0
    assert 50 < result["peak_mb"] < 600
    assert set(result["once"]) == {"Vela", "load", "first run"}
    assert result["warm"]["npubox"] > 0
    for name, time in result["warm"].items():
        if name != "npubox":
            assert result["ratios"][f"npubox / {name}"] == result["warm"]["npubox"] / time


def test_markdown_is_one_table() -> None:
    done = run("--network", "digits", "--markdown")
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(rows) == 3
    assert rows[2].startswith("| digits |")
    assert len({row.count("|") for row in rows}) == 1


def test_an_unknown_network_is_an_error() -> None:
    done = run("--network", "absent")
    assert done.returncode == 2
    assert "absent" in done.stderr


def test_made_mobilenets_are_exact() -> None:
    done = run("--network", "mobilenet_v2_1.0_224_uint8 (random)", "--json")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert result["exact"] is True
    assert result["cpu_operators"] == []
    assert {"LiteRT XNNPACK", "LiteRT reference kernels"} <= set(result["warm"])


def test_the_table_goes_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- begin: python -m benchmarks -->\nold\n<!-- end -->\nafter\n")
    write(page, [], machine("ethos-u65-256", 1, 1.0, 2.0))
    text = page.read_text()
    assert text.startswith("before\n<!-- begin: python -m benchmarks -->\n")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "old" not in text
    assert "compiles them: 2 s" in text
