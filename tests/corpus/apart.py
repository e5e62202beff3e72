# SPDX-License-Identifier: Apache-2.0
"""Call compilers and reference kernels in processes of their own.

They abort on some valid files, print, and keep state: Vela's legacy core makes wrong files when it compiles
a second network in one process. Each call gets a fresh process, forked from one that has imported them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

_context = get_context("forkserver")
_context.set_forkserver_preload(
    [
        "pytest",
        "numpy",
        "ethosu.vela.vela",
        "ai_edge_litert.interpreter",
        "tflite_micro.python.tflite_micro.runtime",
        "npubox.formats.tflite",
    ]
)


class Died(Exception):  # noqa: N818 - the field says that processes die
    """The process ended in the middle of a call."""


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)`; what it raises is raised here, or Died."""
    ours, theirs = _context.Pipe(duplex=False)
    process = _context.Process(target=_call, args=(theirs, function, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        result, error = ours.recv()
    except EOFError:
        process.join()
        raise Died(f"{function.__name__} ended its process with status {process.exitcode}") from None
    process.join()
    if error is not None:
        raise error
    return result


def _call(connection: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        connection.send((function(*arguments), None))
    except Exception as error:
        connection.send((None, RuntimeError(f"{type(error).__name__}: {error}")))
