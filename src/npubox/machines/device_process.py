# SPDX-License-Identifier: Apache-2.0
"""The process of a served part's device: `python -m npubox.machines.device_process PRESET INDEX FD`.

It ends when the other end of the socket does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys

from npubox.machines.preset import find_preset

NICENESS = 5  # the programs' own work goes first


def main(preset: str, index: int, fd: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    find_preset(preset).parts[index].run_device(socket.socket(fileno=fd))
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
