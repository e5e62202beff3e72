# SPDX-License-Identifier: Apache-2.0
"""A launch on a preset that counts what is left: python -m tests.serve.counted REPORT [--preset=NAME]
[--full] [--user] [--tier=B] -- PROGRAM [ARG]...

REPORT gets, as JSON, open files, buffer objects and bytes of the store when the last program is gone
and its jobs had a moment to end.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from importlib import import_module
from pathlib import Path

from npubox.machines.npu_split import SplitNpuPart
from npubox.machines.preset import find_preset
from npubox.machines.refaccel_part import RefAccelPart
from npubox.serve.execute import Request, execute
from npubox.serve.launch import Wish
from npubox.serve.preset import PresetMachine
from tests.processes import become_nobody

PATIENCE = 10.0
LATE = ("npubox.machines.machine", "npubox.machines.sw_sync_part")
"""What power-up imports."""


class CountedMachine(PresetMachine):
    def __init__(self, report: Path, preset: str) -> None:
        super().__init__(find_preset(preset))
        self._report = report

    def close(self) -> None:
        if self.parts is not None:
            part = self.parts.parts[0]
            assert isinstance(part, SplitNpuPart | RefAccelPart)
            device = part.device
            deadline = time.monotonic() + PATIENCE
            while device.object_count and time.monotonic() < deadline:
                time.sleep(0.01)
            left = {
                "files": len(device.files),
                "objects": device.object_count,
                "bytes": device.store.resident_bytes,
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
            }
            whole = self._report.with_suffix(".part")
            whole.write_text(json.dumps(left))
            whole.rename(self._report)
        super().close()


def main(arguments: list[str]) -> int:
    split = arguments.index("--")
    report, *options = arguments[:split]
    preset = next((option.split("=")[1] for option in options if option.startswith("--preset=")), "imx93")
    full = "--full" in options
    if "--user" in options:
        for module in LATE:  # nobody may not be able to read Python's files
            import_module(module)
        find_preset(preset)
        become_nobody()
    wish = Wish(all_opens=full, files=full, seccomp_only="--tier=B" in options)
    return execute(Request(arguments[split + 1 :], lambda: CountedMachine(Path(report), preset), wish))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
