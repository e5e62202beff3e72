# SPDX-License-Identifier: Apache-2.0
"""A launch on a subsystem that counts what is left.

    python -m tests.serve.counted_subsystem REPORT FAULT -- PROGRAM [ARG]...

FAULT, unless it is "none", happens when the first inference comes. REPORT gets, as JSON, how many objects the
driver still has when the last program is gone and what it had begun had a moment to end.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from npubox.machines.preset import find_preset
from npubox.machines.subsystem_part import SplitSubsystemPart
from npubox.serve.execute import Request, execute
from npubox.serve.preset import PresetMachine

PATIENCE = 30.0


class CountedSubsystem(PresetMachine):
    def __init__(self, report: Path, fault: str) -> None:
        super().__init__(find_preset("imx93-linux"))
        self._report = report
        self._fault = fault

    def power_up(self, done: Callable[[], None]) -> None:
        def powered_up() -> None:
            if self._fault != "none":
                self._part.inject(self._fault)
            done()

        super().power_up(powered_up)

    @property
    def _part(self) -> SplitSubsystemPart:
        assert self.parts is not None
        (part,) = self.parts.parts
        assert isinstance(part, SplitSubsystemPart)
        return part

    def close(self) -> None:
        if self.parts is not None:
            device = self._part.device
            deadline = time.monotonic() + PATIENCE
            while device.objects and time.monotonic() < deadline:
                time.sleep(0.01)
            whole = self._report.with_suffix(".part")
            whole.write_text(json.dumps({"objects": device.objects}))
            whole.rename(self._report)
        super().close()


def main(arguments: list[str]) -> int:
    report, fault, _, *command = arguments
    return execute(Request(command, lambda: CountedSubsystem(Path(report), fault)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
