# SPDX-License-Identifier: Apache-2.0
"""Write the table of docs/cycles.md: the cost model beside Vela's own estimate, network by network.

    python scripts/compare_cycles.py

Needs the networks of ../shared/models (NPUBOX_SHARED); takes a minute.
"""

from __future__ import annotations

import csv
import datetime
import os
import statistics
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from npubox.devices.ethosu_npu.configuration import CONFIGURATIONS
from npubox.devices.ethosu_npu.plan import build_plan
from npubox.formats.tflite import read_network

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "cycles.md"
CORPUS = ROOT / "tests" / "corpus" / "networks"
SHARED = Path(os.environ.get("NPUBOX_SHARED") or ROOT.parent / "shared") / "models"
BEGIN, END = "<!-- begin: scripts/compare_cycles.py -->\n", "<!-- end -->\n"
ACCELERATORS = ("ethos-u55-128", "ethos-u65-256", "ethos-u65-512")
SMALL = (
    "add_channels_int16",
    "add_different_scales_int8",
    "avg_pool_3_same_int8",
    "bilinear_x2_int8",
    "cascade_int8",
    "classifier_uint8",
    "concat_c_int8",
    "conv_1x1_stride_2_int8",
    "conv_3x3_int16",
    "conv_3x3_int8",
    "conv_dilation_3x2_int8",
    "conv_many_channels_int8",
    "dense_deep_int8",
    "depthwise_3x3_int16",
    "depthwise_5x5_int8",
    "hard_swish_int8",
    "leaky_relu_int16",
    "lstm_int8",
    "matmul_int8",
    "max_pool_3_same_int16",
    "mobilenet_v3_block_int8",
    "mul_int8",
    "residual_int8",
    "sigmoid_int16",
    "softmax_int16",
    "softmax_rows_int8",
    "transposed_stride_2_int8",
    "unet_int8",
)


def main() -> int:
    large = [ROOT / "examples" / "digits" / "digits.tflite", *sorted(SHARED.glob("*.tflite"))]
    if len(large) == 1:
        print(f"no networks in {SHARED}", file=sys.stderr)
        return 2
    small = [CORPUS / f"{name}.tflite" for name in SMALL]
    rows = {
        path.stem: [_both(path, accelerator) for accelerator in ACCELERATORS] for path in [*large, *small]
    }
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(before + BEGIN + _table(rows, len(large)) + END + after, "utf-8")
    return 0


def _both(path: Path, accelerator: str) -> tuple[int, int]:
    """Cycles of one inference: of the cost model, and as Vela estimates."""
    with tempfile.TemporaryDirectory(prefix="npubox-cycles-") as directory:
        command = [sys.executable, "-m", "ethosu.vela", str(path), "--accelerator-config", accelerator]
        subprocess.run([*command, "--output-dir", directory], check=True, capture_output=True)
        compiled = read_network(Path(directory) / f"{path.stem}_vela.tflite")
        (summary,) = Path(directory).glob("*_summary_*.csv")
        with summary.open() as file:
            (estimate,) = csv.DictReader(file)
    streams = [operator.npu.stream.words for operator in compiled.operators if operator.npu is not None]
    ours = sum(build_plan(words, CONFIGURATIONS[accelerator]).cycles[-1] for words in streams)
    return ours, round(float(estimate["cycles_total"]))


def _table(rows: dict[str, list[tuple[int, int]]], large: int) -> str:
    lines = [
        f"{datetime.datetime.now(datetime.UTC).date().isoformat()}, ethos-u-vela "
        f"{metadata.version('ethos-u-vela')} with its default system configuration and memory mode for each.",
        "",
        "| network | " + " | ".join(f"{name}: ours | Vela | ratio" for name in ACCELERATORS) + " |",
        "|---|" + "---:|" * (3 * len(ACCELERATORS)),
    ]
    for name, pairs in rows.items():
        figures = " | ".join(f"{ours} | {vela} | {ours / vela:.2f}" for ours, vela in pairs)
        lines.append(f"| {name} | {figures} |")
    lines += [
        "",
        "| ratio ours / Vela | " + " | ".join(ACCELERATORS) + " |",
        "|---|" + "---:|" * len(ACCELERATORS),
    ]
    names = list(rows)
    for title, chosen in (
        (f"the {large} trained networks", names[:large]),
        (f"the {len(names) - large} small ones", names[large:]),
        ("all", names),
    ):
        cells = []
        for n in range(len(ACCELERATORS)):
            ratios = [rows[name][n][0] / rows[name][n][1] for name in chosen]
            cells.append(f"median {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
