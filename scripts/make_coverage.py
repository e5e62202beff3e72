# SPDX-License-Identifier: Apache-2.0
"""Write docs/ethos-u.md: what of the Ethos-U55 and U65 is modelled, verified and refused.

    python -m scripts.make_coverage            # the page, from the code and the recorded evidence
    python -m scripts.make_coverage --record   # first record the evidence anew: a few minutes

The evidence, docs/ethos-u-evidence.json, is what the command streams of those networks hold that equal
their oracle bit for bit while it is recorded: those of tests/corpus, the shared ones (NPUBOX_SHARED) and
the digits.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "ethos-u.md"
EVIDENCE = DOCS / "ethos-u-evidence.json"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.make_coverage", description=__doc__)
    parser.add_argument("--record", action="store_true", help="record the evidence anew")
    record = parser.parse_args().record
    # Not at the top: every process that compiles a network imports this module again.
    from scripts.ethosu_coverage import evidence, page

    if record:
        EVIDENCE.write_text(json.dumps(evidence.record(), indent=1) + "\n", "utf-8")
    PAGE.write_text(page.page(json.loads(EVIDENCE.read_text("utf-8"))), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
