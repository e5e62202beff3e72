# SPDX-License-Identifier: Apache-2.0
"""Networks: a .tflite in a buffer, or one of the firmware's own, and what the firmware says of it.

Source: the project's facts (ethosu-linux.md §1.5, §1.6).
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from npubox.core.caller import Caller
from npubox.core.file import TokenStandIn
from npubox.core.pending import Pending
from npubox.drivers.misc.ethosu import nxp
from npubox.drivers.misc.ethosu.buffer import Buffer, Operands, Window
from npubox.drivers.misc.ethosu.file import Client, Copies, EthosuFile, command
from npubox.drivers.misc.ethosu.inference import AnyPmuConfig, Inference
from npubox.drivers.misc.ethosu.network_info import InfoCall, LayoutCall
from npubox.hw.ethosu import core_interface as core
from npubox.uapi import ethosu_linux as uapi
from npubox.uapi import ethosu_linux_nxp as uapi_nxp

if TYPE_CHECKING:
    from npubox.drivers.misc.ethosu.drv import EthosuDevice


class Network(EthosuFile):
    """Holds `buffer`, or stands for the network `index` of the firmware's own."""

    link = "anon_inode:ethosu-network"
    stand_in = TokenStandIn()

    def __init__(self, device: EthosuDevice, client: Client, buffer: Buffer | None, index: int = 0) -> None:
        super().__init__(device, client)
        self._buffer = buffer
        self._index = index
        self.layout: core.NetworkLayoutRsp | None = None
        if buffer is not None:
            buffer.get()

    def free(self) -> None:
        if self._buffer is not None:
            self._buffer.put()

    def descriptor(self) -> core.Network:
        """As messages name it, with the buffer's window as it is now."""
        if self._buffer is None:
            return core.Network(core.NetworkType.INDEX, self._index, 0)
        window = self._buffer
        return core.Network(core.NetworkType.BUFFER, window.address + window.offset, window.size)

    @command(uapi.NETWORK_INFO, Copies.IN | Copies.OUT)
    def info(self, args: uapi.NetworkInfo, caller: Caller) -> Pending:
        return InfoCall(self, args).wait()

    @command(uapi_nxp.NETWORK_INFO, Copies.IN | Copies.OUT)
    def info_nxp(self, args: uapi_nxp.NetworkInfo, caller: Caller) -> Pending:
        return LayoutCall(self, args).wait()

    @command(uapi.INFERENCE_CREATE, Copies.IN)
    def create_inference(self, args: uapi.InferenceCreate, caller: Caller) -> int:
        inputs = self._buffers(args.ifm_fd, args.ifm_count, caller)
        outputs = self._buffers(args.ofm_fd, args.ofm_count, caller)
        operands = Operands([*map(Window, inputs)], [*map(Window, outputs)])
        return self._start(operands, args.pmu_config, caller)

    @command(uapi_nxp.INFERENCE_CREATE, Copies.IN)
    def create_inference_nxp(self, args: uapi_nxp.InferenceCreate, caller: Caller) -> int:
        """The type is not looked at: NXP's own library leaves it to chance."""
        inputs = self._buffers(args.ifm_fd, args.ifm_count, caller)
        outputs = self._buffers(args.ofm_fd, args.ofm_count, caller)
        return self._start(nxp.operands(inputs, outputs, self.layout), args.pmu_config, caller)

    @command(uapi_nxp.INFERENCE_CREATE_STAGING, Copies.IN)
    def create_inference_staging(self, args: uapi_nxp.InferenceCreateStaging, caller: Caller) -> int:
        nxp.refuse_operators(args.inference_type)
        inputs = self._buffers(args.ifm_fd, args.ifm_count, caller)
        operands = nxp.operands_of_layout(inputs, args.memory_layout)
        inference = Inference(self, operands, args.pmu_config)
        return self.device.install(inference, caller)

    def _start(self, operands: Operands, pmu: AnyPmuConfig, caller: Caller) -> int:
        inference = Inference(self, operands, pmu)
        try:
            inference.start()
        except OSError:
            inference.put()
            raise
        return self.device.install(inference, caller)

    def _buffers(self, fds: list[int], count: int, caller: Caller) -> list[Buffer]:
        """Only the first `count` are looked at: the rest of a caller's array may be garbage."""
        if count > uapi.FD_MAX:
            raise OSError(errno.EFAULT, f"{count} buffers are more than {uapi.FD_MAX}")
        return [self.device.buffer(fd, caller) for fd in fds[:count]]
