# SPDX-License-Identifier: Apache-2.0
"""One run of a network as its caller holds it: wait for it, poll it, await it, read what came out."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

from npubox.client.backend import Array, Run
from npubox.client.hardware import deadline_ns
from npubox.client.lifetime import Closable
from npubox.errors import WaitTimeout

Outputs = Array | tuple[Array, ...]


class Inference(Closable):
    """It was submitted when it was made. What it computed is copied when it finishes, so it outlives
    `close`, the network and the device.

    Operators left to the CPU run on the thread that submits, waits, polls or awaits. All methods may be
    called from many threads at once. Closing an unfinished one lets go of it; the NPU ends the job alone.
    """

    _kind = "inference"

    def __init__(self, run: Run) -> None:
        self._run = run
        super().__init__(run.uses)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it has finished, at most `timeout` seconds of the host's time.

        Raises WaitTimeout when it has not (it goes on: wait again), JobFailed when the NPU did not finish
        a job, though the driver's ABI reports success for such jobs.
        """
        if not self._run.advance(deadline_ns(timeout)):
            raise WaitTimeout(f"the inference has not finished after {timeout} s; it goes on: wait again")
        if self._run.error is not None:
            raise self._run.error

    @property
    def done(self) -> bool:
        """Poll: whether it has finished, well or not. Never blocks on the NPU."""
        return self._run.advance(0)

    @property
    def outputs(self) -> tuple[Array, ...]:
        """One array an output, in the network's order, dtype and shape. Waits as `wait()` does."""
        self.wait()
        return self._run.outputs

    @property
    def cycles(self) -> int | None:
        """Cycles the NPU took, by the virtual NPU's cost model; None on real hardware. Waits."""
        self.wait()
        return self._run.cycles

    @property
    def device_time_ns(self) -> int | None:
        """Nanoseconds of device time its jobs took; None on real hardware. Waits."""
        self.wait()
        return self._run.device_time_ns

    def cancel(self) -> None:
        """Take it back: `wait` raises JobFailed then, unless it was over already. Raises CancelUnsupported on
        a node of the mainline driver, which has no ioctl for it."""
        self._run.cancel()

    def __await__(self) -> Generator[Any, None, Outputs]:
        """Wait on a thread of the running asyncio loop; gives what calling the network gives."""
        yield from asyncio.get_running_loop().run_in_executor(None, self.wait).__await__()
        return unpack(self._run.outputs)


def unpack(outputs: tuple[Array, ...]) -> Outputs:
    """One output is itself, several are a tuple."""
    return outputs[0] if len(outputs) == 1 else outputs
