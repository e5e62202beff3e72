# SPDX-License-Identifier: Apache-2.0
"""Inferences: a run of a network that a program waits for by polling, reads the status of, or cancels.

Source: the project's facts (ethosu-linux.md §1.3, §1.5).
"""

from __future__ import annotations

import errno
import select
from typing import TYPE_CHECKING

from npubox.core.caller import Caller
from npubox.core.drm.fence import Fence, new_context
from npubox.core.file import SignalStandIn
from npubox.core.pending import Pending
from npubox.drivers.misc.ethosu.buffer import Operands
from npubox.drivers.misc.ethosu.file import Copies, EthosuFile, Policy, command
from npubox.drivers.misc.ethosu.requests import Call, Request
from npubox.hw.ethosu import core_interface as core
from npubox.uapi import ethosu_linux as uapi
from npubox.uapi import ethosu_linux_nxp as uapi_nxp

if TYPE_CHECKING:
    from npubox.drivers.misc.ethosu.network import Network

LARGEST_EVENT = 0xFF  # a message has a byte for each
STATUS_ERRORS = {
    uapi.Status.OK: 0,
    uapi.Status.ERROR: errno.EIO,
    uapi.Status.REJECTED: errno.EBUSY,
    uapi.Status.ABORTED: errno.ECANCELED,
}
"""How a run may end, and the errno that the control channel is told of it."""
AnyPmuConfig = uapi.PmuConfig | uapi_nxp.PmuConfig
AnyResultStatus = uapi.ResultStatus | uapi_nxp.ResultStatus


class Inference(EthosuFile):
    """Holds its network and buffers. OSError EINVAL for PMU events that no message can carry."""

    link = "anon_inode:ethosu-inference"

    def __init__(self, network: Network, operands: Operands, pmu: AnyPmuConfig) -> None:
        events = [*pmu.events, *[0] * (core.PMU_EVENT_MAX - len(pmu.events))]
        if max(events) > LARGEST_EVENT and network.device.policy is not Policy.ORIGINAL:
            raise OSError(errno.EINVAL, f"PMU events go up to {LARGEST_EVENT}, not {max(events)}")
        super().__init__(network.device, network.client)
        self.network = network
        self.operands = operands
        self.status = uapi.Status.ERROR
        self.events = [event & LARGEST_EVENT for event in events]
        self.cycle_counter = pmu.cycle_count
        self._event_counts = [0] * core.PMU_EVENT_MAX
        self._cycles = 0
        self._run: Run | None = None
        self._finished = Fence(new_context(), 1)
        self.stand_in = SignalStandIn(self._finished)
        network.get()
        for buffer in operands.buffers:
            buffer.get()

    def free(self) -> None:
        for buffer in self.operands.buffers:
            buffer.put()
        self.network.put()

    def poll(self) -> int:
        return select.POLLIN if self._finished.signalled else 0

    def poll_changes(self) -> Fence:
        return self._finished

    @property
    def run(self) -> Run | None:
        """The run in progress."""
        return self._run

    def start(self) -> Run:
        """Send the request; OSError EINVAL where the queue has no room, EBUSY while it runs."""
        if self._run is not None:
            raise OSError(errno.EBUSY, "this inference runs already")
        run = Run(self)
        self.device.firmware.submit(run)
        self.get()
        self._run = run
        self.client.runs += 1
        self.status = uapi.Status.RUNNING
        return run

    def complete(self, answer: core.InferenceRsp) -> None:
        """The firmware has answered."""
        status = uapi.Status(answer.status) if answer.status in STATUS_ERRORS else uapi.Status.ERROR
        if status is uapi.Status.OK:
            self.events = list(answer.pmu_event_config)
            self._event_counts = list(answer.pmu_event_count)
            self.cycle_counter = answer.pmu_cycle_counter_enable
            self._cycles = answer.pmu_cycle_counter_count
            if not self._take_outputs(answer):
                status = uapi.Status.ERROR
        self.finish(status, STATUS_ERRORS[status])

    def finish(self, status: uapi.Status, error: int) -> None:
        run = self._run
        assert run is not None
        self._run = None
        self.status = status
        if self.device.observer is not None:
            self.device.observer(self.client_id, run.sequence, run.id, error)
        self._finished.signal()

    def _take_outputs(self, answer: core.InferenceRsp) -> bool:
        outputs = self.operands.outputs
        if answer.ofm_count != len(outputs):
            return False
        return all(output.written(size) for output, size in zip(outputs, answer.ofm_size, strict=False))

    def tell(self, args: AnyResultStatus) -> None:
        """Fill the struct of any generation: each has room for so many counters."""
        args.status = self.status
        counters = len(args.pmu_config.events)
        args.pmu_config.events[:] = self.events[:counters]
        args.pmu_config.cycle_count = self.cycle_counter
        args.pmu_count.events[:] = self._event_counts[:counters]
        args.pmu_count.cycle_count = self._cycles

    @command(uapi.INFERENCE_STATUS, Copies.OUT)
    def get_status(self, args: uapi.ResultStatus, caller: Caller) -> None:
        self.tell(args)

    @command(uapi_nxp.INFERENCE_STATUS, Copies.OUT)
    def get_status_nxp(self, args: uapi_nxp.ResultStatus, caller: Caller) -> None:
        self.tell(args)

    @command(uapi_nxp.INFERENCE_INVOKE, Copies.OUT)
    def invoke(self, args: uapi_nxp.ResultStatus, caller: Caller) -> Pending:
        """Returns when the run is over, so that poll, which cannot go back, never tells of an earlier one."""
        run = self.start()
        pending = Pending([run.over])
        pending.on_finish(lambda error: None if error else self.tell(args))
        return pending

    @command(uapi.INFERENCE_CANCEL, Copies.OUT)
    def cancel(self, args: uapi.CancelInferenceStatus, caller: Caller) -> Pending | None:
        if self._run is None:
            args.status = uapi.Status.ERROR
            return None
        call = CancelCall(self, self._run, args)
        pending = call.wait()
        self.status = uapi.Status.ABORTING
        return pending


class Run(Request[core.InferenceRsp]):
    """One request to run an inference, which it holds."""

    kind = core.MessageType.INFERENCE_REQ
    answer = core.MessageType.INFERENCE_RSP

    def __init__(self, inference: Inference) -> None:
        self._inference = inference
        self.sequence = inference.client.runs
        self.over = Fence(new_context(), 1)

    def payload(self) -> core.InferenceReq:
        inference = self._inference
        message = core.InferenceReq(
            user_arg=self.id,
            network=inference.network.descriptor(),
            ifm_count=len(inference.operands.inputs),
            ofm_count=len(inference.operands.outputs),
            pmu_cycle_counter_enable=inference.cycle_counter,
        )
        for index, operand in enumerate(inference.operands.inputs):
            message.ifm[index] = operand.as_input()
        for index, operand in enumerate(inference.operands.outputs):
            message.ofm[index] = operand.as_output()
        message.pmu_event_config[:] = inference.events
        return message

    def answered(self, answer: core.InferenceRsp) -> None:
        self._inference.complete(answer)

    def failed(self, error: int) -> None:
        aborting = self._inference.status is uapi.Status.ABORTING
        self._inference.finish(uapi.Status.ABORTED if aborting else uapi.Status.ERROR, error)

    def survives_restart(self) -> bool:
        if self._inference.status is not uapi.Status.ABORTING:
            return True
        self._inference.finish(uapi.Status.ABORTED, errno.ECANCELED)
        return False

    def released(self) -> None:
        self.over.signal()
        self._inference.put()


class CancelCall(Call[core.CancelInferenceRsp]):
    """Holds the inference while it is in progress."""

    kind = core.MessageType.CANCEL_INFERENCE_REQ
    answer = core.MessageType.CANCEL_INFERENCE_RSP

    def __init__(self, inference: Inference, run: Run, args: uapi.CancelInferenceStatus) -> None:
        firmware = inference.device.firmware
        super().__init__(inference, firmware.timeouts.cancel, errno.EIO)
        self._inference = inference
        self._cancelled = run
        self._args = args

    def payload(self) -> core.CancelInferenceReq:
        return core.CancelInferenceReq(self.id, self._cancelled.id)

    def accept(self, answer: core.CancelInferenceRsp) -> None:
        """A run that the firmware cannot take back, as the NPU is at it, ends with a reset."""
        if answer.status != core.CoreStatus.OK and self._inference.run is self._cancelled:
            self.firmware.restart(self._cancelled)
            self._tell()
        else:
            self._args.status = answer.status

    def survives_restart(self) -> bool:
        self._tell()
        self.end()
        return False

    def _tell(self) -> None:
        aborted = self._inference.status is not uapi.Status.OK
        self._args.status = uapi.Status.OK if aborted else uapi.Status.ERROR
