# SPDX-License-Identifier: Apache-2.0
"""What takes a while says so, to a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_shown: list[tuple[Any, str]] = []  # the status line on the terminal, and what its owner says


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show `what` on stderr while this is entered; nothing where that is no terminal. An inner one takes
    the outer one's line meanwhile."""
    if not sys.stderr.isatty():
        yield
        return
    if not _shown:
        from rich.console import Console

        with Console(stderr=True).status(what) as status:
            _shown.append((status, what))
            try:
                yield
            finally:
                _shown.clear()
        return
    status, outer = _shown[0]
    status.update(what)
    try:
        yield
    finally:
        status.update(outer)
