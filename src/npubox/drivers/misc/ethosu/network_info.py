# SPDX-License-Identifier: Apache-2.0
"""What the firmware says of a network, to Arm's NETWORK_INFO and to NXP's.

Arm's message has no shapes, types and offsets; for those we ask by a message of our own, to which only
our firmware has an answer. Source: the project's facts (ethosu-linux.md §1.3, §1.6, §2.3).
"""

from __future__ import annotations

import ctypes
import errno
from typing import TYPE_CHECKING

from npubox.drivers.misc.ethosu.requests import AnswerT, Call
from npubox.hw.ethosu import core_interface as core
from npubox.uapi import ethosu_linux as uapi
from npubox.uapi import ethosu_linux_nxp as uapi_nxp

if TYPE_CHECKING:
    from npubox.drivers.misc.ethosu.network import Network


class NetworkCall(Call[AnswerT]):
    """Holds the network while it is in progress."""

    def __init__(self, network: Network) -> None:
        super().__init__(network, network.device.firmware.timeouts.network_info)
        self.network = network

    def payload(self) -> ctypes.LittleEndianStructure:
        return core.NetworkInfoReq(self.id, self.network.descriptor())


class InfoCall(NetworkCall[core.NetworkInfoRsp]):
    """Array entries beyond the counts keep what the caller had in them."""

    kind = core.MessageType.NETWORK_INFO_REQ
    answer = core.MessageType.NETWORK_INFO_RSP

    def __init__(self, network: Network, args: uapi.NetworkInfo) -> None:
        super().__init__(network)
        self._args = args

    def accept(self, answer: core.NetworkInfoRsp) -> None:
        _check(answer)
        args = self._args
        args.desc = answer.desc
        args.ifm_count, args.ofm_count = answer.ifm_count, answer.ofm_count
        args.ifm_size[: answer.ifm_count] = answer.ifm_size[: answer.ifm_count]
        args.ofm_size[: answer.ofm_count] = answer.ofm_size[: answer.ofm_count]


class LayoutCall(NetworkCall[core.NetworkLayoutRsp]):
    """The network remembers the answer: NXP's inferences find their tensors by it."""

    kind = core.MessageType.NETWORK_LAYOUT_REQ
    answer = core.MessageType.NETWORK_LAYOUT_RSP

    def __init__(self, network: Network, args: uapi_nxp.NetworkInfo) -> None:
        super().__init__(network)
        self._args = args

    def accept(self, answer: core.NetworkLayoutRsp) -> None:
        _check(answer)
        self.network.layout = answer
        args = self._args
        args.desc = answer.desc
        args.is_vela = answer.is_vela
        args.ifm_count, args.ofm_count = answer.ifm_count, answer.ofm_count
        for index, tensor in enumerate(answer.ifm[: answer.ifm_count]):
            args.ifm_size[index], args.ifm_types[index] = tensor.size, tensor.type
            args.ifm_offset[index], args.ifm_dims[index] = tensor.offset, tensor.dims
            args.ifm_shapes[index][:] = tensor.shape
        for index, tensor in enumerate(answer.ofm[: answer.ofm_count]):
            args.ofm_size[index], args.ofm_types[index] = tensor.size, tensor.type
            args.ofm_offset[index], args.ofm_dims[index] = tensor.offset, tensor.dims
            args.ofm_shapes[index][:] = tensor.shape


def _check(answer: core.NetworkInfoRsp | core.NetworkLayoutRsp) -> None:
    if answer.status != core.CoreStatus.OK:
        raise OSError(errno.EBADF, "the firmware cannot use this network")
    if max(answer.ifm_count, answer.ofm_count) > uapi.FD_MAX:
        raise OSError(errno.ENFILE, f"{answer.ifm_count} inputs and {answer.ofm_count} outputs are too many")
    if len(answer.desc) == uapi.DESC_MAX:
        raise OSError(errno.E2BIG, "the network's description does not end")
