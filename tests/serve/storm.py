# SPDX-License-Identifier: Apache-2.0
"""Kills a client at random moments: python storm.py TIMES SEED CLIENT [ARG]... prints how many it caught."""

from __future__ import annotations

import random
import subprocess
import sys
import time

LONGEST = 0.06  # seconds


def main(times: int, seed: int, command: list[str]) -> None:
    dice = random.Random(seed)
    caught = 0
    for _ in range(times):
        client = subprocess.Popen(command)
        time.sleep(dice.random() * LONGEST)
        client.kill()
        caught += client.wait() == -9
    print(caught)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
