# SPDX-License-Identifier: Apache-2.0
"""The process that people see leaves no zombie of the program's orphans."""

from __future__ import annotations

import sys

from tests.serve.conftest import run


def test_orphans_are_reaped() -> None:
    code = (
        "import os, subprocess, time\n"
        "for _ in range(20): subprocess.run(['sh', '-c', 'sleep 0.05 & exit 0'])\n"
        "time.sleep(0.5)\n"
        "found = subprocess.run(['ps', '-eo', 'stat,ppid,comm'], capture_output=True, text=True).stdout\n"
        "front = int(open(f'/proc/{os.getppid()}/stat').read().split()[3])\n"
        "print(sum(line.split()[0].startswith('Z') and int(line.split()[1]) in (1, front)"
        " and line.split()[2] == 'sleep' for line in found.splitlines()[1:]))\n"
    )
    assert run(sys.executable, "-c", code).stdout == "0\n"
