# SPDX-License-Identifier: Apache-2.0
"""Where finalisers hand over what they release.

Python runs a finaliser in the middle of whatever a thread is doing, inside anybody's lock. Releasing
runs drivers, ports and clocks, so it is done on a thread that holds nothing.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)
_work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
_guard = threading.Lock()
_pid = 0


def start() -> None:
    """Make sure the thread runs in this process. Not for finalisers: call it before there is one."""
    global _pid
    with _guard:
        if _pid != os.getpid():
            _pid = os.getpid()
            threading.Thread(target=_run, name="npubox-reaper", daemon=True).start()


def post(work: Callable[[], None]) -> None:
    """Have `work` done soon; safe in a finaliser."""
    _work.put(work)


def drain() -> None:
    """Return when everything posted so far is done. Never call it with a lock held."""
    start()
    done = threading.Event()
    post(done.set)
    done.wait()


def _run() -> None:
    while True:
        work = _work.get()
        try:
            work()
        except Exception:
            _log.exception("releasing a forgotten file or mapping failed")
        del work
