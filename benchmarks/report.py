# SPDX-License-Identifier: Apache-2.0
"""The measurements as a table for people, for docs/performance.md and for programs."""

from __future__ import annotations

import datetime
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measure import OURS, Result
from benchmarks.runtimes import LITERT_REF, MICRO, XNNPACK

PACKAGES = ("numpy", "numba", "ethos-u-vela", "ai-edge-litert", "tflite-micro")
DOT_PRODUCT_FLAGS = ("avx512_vnni", "avx_vnni", "asimddp")
HEADINGS = (
    "network",
    "Vela",
    "load",
    "first run",
    "warm",
    "XNNPACK",
    "LiteRT ref",
    "tflite-micro",
    "× XNNPACK",
    "LiteRT ref ×",
    "tflite-micro ×",
    "peak MB",
    "NPU cycles",
    "exact",
)
EXPLANATION = (
    "Milliseconds; warm times are medians of interleaved rounds, end to end (inputs in, outputs out). "
    "Once: Vela compiles, load puts the network on the device, the first run plans it. "
    "`× XNNPACK`: npubox takes that many times as long; `ref ×`: the reference kernels take that many times "
    "as long as npubox. Peak: resident memory of a fresh process that loads the network and runs it once. "
    "Exact: equal to the network's oracle bit for bit."
)


def machine(device: str, threads: int, power_up_ms: float, cold_s: float | None) -> dict[str, Any]:
    """What the figures were measured on; `cold_s` is how long power-up takes that compiles all kernels."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": fields.get("model name") or platform.machine(),
        "cpus": os.cpu_count(),
        "dot_product": [flag for flag in DOT_PRODUCT_FLAGS if flag in flags],
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": device,
        "threads": threads,
        "load": os.getloadavg()[0],
        "power_up_ms": power_up_ms,
        "cold_power_up_s": cold_s,
    }


def as_rich(results: list[Result], about: dict[str, Any]) -> None:
    table = Table(caption=EXPLANATION)
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == HEADINGS[0] else "right")
    for result in results:
        table.add_row(*_cells(result))
    console = Console()
    console.print(f"{_described(about)}", highlight=False)
    console.print(table)
    for line in _remarks(results):
        console.print(line, markup=False, highlight=False)


def as_markdown(results: list[Result], about: dict[str, Any]) -> str:
    rows = [HEADINGS, ["---"] + ["---:"] * (len(HEADINGS) - 1), *map(_cells, results)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    remarks = "\n".join(f"- {line}" for line in _remarks(results))
    return f"{_described(about)}\n\n{table}\n\n{EXPLANATION}\n" + (f"\n{remarks}\n" if remarks else "")


def write(page: Path, results: list[Result], about: dict[str, Any]) -> None:
    """Replace what the page holds between its two marks."""
    before, begin, rest = page.read_text("utf-8").partition("<!-- begin: python -m benchmarks -->\n")
    _, end, after = rest.partition("<!-- end -->\n")
    assert end, f"{page} has no place for the table"
    page.write_text(before + begin + as_markdown(results, about) + end + after, "utf-8")


def _described(about: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items() if version)
    dot = (
        f"with {', '.join(about['dot_product'])}"
        if about["dot_product"]
        else "without dot-product instructions"
    )
    cold = (
        f"; the first one, which compiles them: {about['cold_power_up_s']:.0f} s"
        if about["cold_power_up_s"] is not None
        else ""
    )
    return (
        f"{about['date']}, {about['device']}, {about['threads']} thread(s)"
        f" on {about['cpus']} × {about['cpu']} {dot}, Python {about['python']}, {packages}."
        f" Load of the machine before: {about['load']:.1f}."
        f" Power-up with all kernels ready: {about['power_up_ms']:.0f} ms{cold}."
    )


def _cells(result: Result) -> list[str]:
    return [
        result.network,
        *(f"{result.once[step]:.1f}" for step in ("Vela", "load", "first run")),
        *(_number(result.warm.get(name), ".3f") for name in (OURS, XNNPACK, LITERT_REF, MICRO)),
        _number(result.ratio(OURS, XNNPACK), ".1f"),
        _number(result.ratio(LITERT_REF, OURS), ".1f"),
        _number(result.ratio(MICRO, OURS), ".1f"),
        f"{result.peak_mb:.0f}",
        _number(result.cycles, "d"),
        "yes" if result.exact else "NO",
    ]


def _number(value: float | None, style: str) -> str:
    return "-" if value is None else format(value, style)


def _remarks(results: list[Result]) -> list[str]:
    lines = [f"{r.network}: {name} is absent: {why}" for r in results for name, why in r.absent.items()]
    return lines + [
        f"{r.network}: on the CPU: {', '.join(r.cpu_operators)}" for r in results if r.cpu_operators
    ]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
