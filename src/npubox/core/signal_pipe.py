# SPDX-License-Identifier: Apache-2.0
"""The pipe behind a `SignalStandIn`: its read end becomes readable when something has happened."""

from __future__ import annotations

import contextlib
import os
import threading

from npubox.core.pending import Completion


class SignalPipe:
    """`reader` is the holder's, to be passed on and closed; `writer` tells by POLLERR when no reader is
    left."""

    def __init__(self, completion: Completion) -> None:
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC)
        self._completion = completion
        self._guard = threading.Lock()
        if not completion.add_callback(self._happened):
            self._happened()

    def close(self) -> None:
        """Close the writer; the reader then is at its end."""
        self._completion.remove_callback(self._happened)
        with self._guard:
            writer, self.writer = self.writer, -1
        if writer >= 0:
            os.close(writer)

    def _happened(self) -> None:
        with self._guard:
            if self.writer >= 0:
                with contextlib.suppress(BrokenPipeError):
                    os.write(self.writer, b"\0")
