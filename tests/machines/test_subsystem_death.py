# SPDX-License-Identifier: Apache-2.0
"""The process of a subsystem's hardware dies under its driver: everything ends with an error, at once."""

from __future__ import annotations

import errno
import os
import signal
import time

import pytest

from npubox.machines.machine import Parts
from npubox.machines.preset import find_preset
from npubox.machines.subsystem_part import SplitSubsystemPart
from npubox.uapi import ethosu_linux as uapi
from tests.machines.test_subsystems import Program

PATIENCE = 30  # seconds: only a test that fails waits so long


def is_gone(program: Program) -> bool:
    """Whether the driver knows. Before it does, a boot may time out, with errors of its own."""
    try:
        program.call(program.node, uapi.PING)
    except OSError as error:
        return error.errno == errno.ENODEV
    return False


@pytest.mark.parametrize("during", ["inference", "reset"])
def test_the_hardware_dies(during: str) -> None:
    parts = Parts(find_preset("imx93-linux"), split=True)
    (part,) = parts.parts
    assert isinstance(part, SplitSubsystemPart)
    try:
        with Program(parts, "/dev/ethosu0") as program:
            network = program.make(program.node, uapi.NETWORK_CREATE, type=2, fd=0)
            result = program.make(program.node, uapi.BUFFER_CREATE, capacity=10)
            part.inject("firmware hang" if during == "reset" else "hang")
            inference = program.infer(network, [program.buffer(bytes(64))], [result])
            if during == "reset":
                os.kill(part.device_pid, signal.SIGSTOP)  # it will not boot again
                with part.device.lock:
                    part.device.firmware.restart()
            os.kill(part.device_pid, signal.SIGKILL)
            deadline = time.monotonic() + PATIENCE
            while not program.file(inference).poll() or not is_gone(program):
                assert time.monotonic() < deadline, "the inference does not end"
                time.sleep(0.001)
            for file, ioctl in ((program.node, uapi.PING), (inference, uapi.INFERENCE_STATUS)):
                with pytest.raises(OSError, match="is gone") as raised:
                    program.call(file, ioctl)
                assert raised.value.errno == errno.ENODEV
        assert part.device.objects == 0
    finally:
        parts.close()
