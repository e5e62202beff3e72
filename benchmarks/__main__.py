# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks`: every network at hand on the virtual NPU and on other runtimes, in one run.

Exit code 0 only if every network gave its oracle's outputs bit for bit.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
THREAD_VARIABLES = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def main() -> int:
    options = _options()
    for variable in THREAD_VARIABLES:  # numpy and Numba read them when they are imported
        os.environ[variable] = str(options.threads)
    import npubox
    from benchmarks import report
    from benchmarks.apart import cold_power_up
    from benchmarks.measure import measure
    from benchmarks.networks import at_hand

    subjects = at_hand()
    missing = set(options.network) - subjects.keys()
    if missing:
        print(f"no network {', '.join(sorted(missing))} is at hand", file=sys.stderr)
        return 2
    cold = cold_power_up(options.device) if options.cold else None
    started = time.perf_counter()
    with npubox.open(options.device) as device:
        about = report.machine(options.device, options.threads, (time.perf_counter() - started) * 1e3, cold)
        results = []
        for name in options.network or subjects:
            print(f"{name} ...", file=sys.stderr)
            results.append(measure(subjects[name](), device, options.rounds, options.threads))
    if options.json:
        print(json.dumps({"machine": about, "results": [r.as_json() for r in results]}, indent=2))
    elif options.write:
        report.write(PAGE, results, about)
    elif options.markdown:
        print(report.as_markdown(results, about))
    else:
        report.as_rich(results, about)
    return 0 if all(result.exact for result in results) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--device", default="ethos-u65-256", help="what npubox.open takes")
    parser.add_argument("--network", action="append", default=[], help="only this one; may be repeated")
    parser.add_argument("--rounds", type=int, default=9, help="samples of each runtime (default 9)")
    parser.add_argument("--threads", type=int, default=1, help="threads of every runtime (default 1)")
    parser.add_argument(
        "--cold", action="store_true", help="also time the power-up that compiles the kernels"
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true")
    output.add_argument("--markdown", action="store_true", help="print what docs/performance.md holds")
    output.add_argument("--write", action="store_true", help="put it into docs/performance.md")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
