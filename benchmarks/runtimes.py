# SPDX-License-Identifier: Apache-2.0
"""The runtimes that are compared: each becomes a callable that runs one inference end to end.

End to end is: write the inputs, run, copy the outputs out. `python -m benchmarks.runtimes NAME MODEL` runs
one once; reference kernels abort on some valid files, so each is tried in a process of its own first.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.networks import Arrays, Subject, at_hand

XNNPACK = "LiteRT XNNPACK"
LITERT_REF = "LiteRT reference kernels"
MICRO = "tflite-micro"
MICRO_ARENA_BYTES = 64 << 20
REASON_LENGTH = 100

Run = Callable[[], Arrays]


def other_runtimes(subject: Subject, threads: int) -> dict[str, Run | str]:
    """Every other runtime's run, or the reason why it has none."""
    found: dict[str, Run | str] = {}
    for name, make in RUNTIMES.items():
        reason = _try_apart(name, subject)
        found[name] = make(subject, threads) if reason is None else reason
    return found


def _litert(subject: Subject, threads: int, *, reference: bool) -> Run:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    interpreter: Any = Interpreter(str(subject.path), num_threads=threads, experimental_op_resolver_type=kind)
    interpreter.allocate_tensors()
    inputs = [detail["index"] for detail in interpreter.get_input_details()]
    outputs = [detail["index"] for detail in interpreter.get_output_details()]

    def run() -> Arrays:
        for index, array in zip(inputs, subject.inputs, strict=True):
            interpreter.set_tensor(index, array)
        interpreter.invoke()
        return tuple(interpreter.get_tensor(index) for index in outputs)

    return run


def _micro(subject: Subject, threads: int) -> Run:
    """tflite-micro knows one thread only."""
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_file(str(subject.path), arena_size=MICRO_ARENA_BYTES)

    def run() -> Arrays:
        for index, array in enumerate(subject.inputs):
            interpreter.set_input(array, index)
        interpreter.invoke()
        return tuple(np.array(interpreter.get_output(index)) for index in range(len(subject.expected)))

    return run


RUNTIMES: dict[str, Callable[[Subject, int], Run]] = {
    XNNPACK: partial(_litert, reference=False),
    LITERT_REF: partial(_litert, reference=True),
    MICRO: _micro,
}


def _try_apart(name: str, subject: Subject) -> str | None:
    """None where the runtime runs the network, else why not."""
    command = [sys.executable, "-m", "benchmarks.runtimes", name, subject.name]
    root = Path(__file__).resolve().parents[1]
    tried = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=root, check=False)
    if tried.returncode == 0:
        return None
    if tried.returncode < 0:
        return f"aborts (signal {-tried.returncode})"
    reason = tried.stderr.strip().rpartition("\n")[2]
    return textwrap.shorten(reason, REASON_LENGTH) or f"ends with status {tried.returncode}"


if __name__ == "__main__":
    RUNTIMES[sys.argv[1]](at_hand()[sys.argv[2]](), 1)()
