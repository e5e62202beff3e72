# SPDX-License-Identifier: Apache-2.0
"""The core interface: what a kernel driver and the Cortex-M of an Ethos-U subsystem say to each other.

Two byte rings in shared memory, named from the Cortex-M's side: the driver writes `in_queue` and reads
`out_queue`. Version 0.2.0, Arm's of 2022.06. Source: the project's facts (ethosu-linux.md §2.1 to §2.3).

What a driver is given (`npubox.bus.port.PlatformDevice`), so that it needs nothing else:

- `memory["in_queue"]`, `memory["out_queue"]`: the rings, header first, as file and offset to map;
  `address` is the CPU's physical address (the device tree's `reg`).
- `dma_start`, `dma_end`: the `memory-region` that buffers are allocated in, CPU physical addresses.
- `dma_ranges`: CPU physical to subsystem addresses; `device_address` of `npubox.bus.port` applies the rule.
  Messages carry subsystem addresses, `port.dma` maps at subsystem addresses, below 4 GiB.
- `port.read32`, `port.write32`: the mailbox and the reset line (`npubox.hw.ethosu.mailbox`). Interrupt 0 is
  the mailbox's rx. A doorbell carries no data: write the message, store `write`, then ring.
- `port.clock`: device time. When the subsystem has nothing to do and the out_queue is read, time flows to the
  next timer (slowly, so that nobody spins); so arm a timer after the message it guards was sent, and
  have its callback look, under the driver's lock, whether it is still wanted.
- `port.dma.map(..., Prot.READ | Prot.WRITE)` is memory that host and subsystem see alike. With
  `Prot.CACHED` the host's side is cacheable: what the host wrote is there for the subsystem after
  `sync_for_device`, what the subsystem wrote for the host after `sync_for_cpu`. On a coherent machine both
  do nothing.

The subsystem is held in reset at power-up. A reset is: assert, put QUEUE_SIZE 0 and QUEUE_RESET_INDEX
into in_queue's header, deassert; the firmware has booted when neither is there any more (§2.5).
"""

from __future__ import annotations

import ctypes
from ctypes import c_char, c_uint8, c_uint32, c_uint64
from enum import IntEnum

MAGIC = 0x41457631
VERSION = (0, 2, 0)
BUFFER_MAX = 16
PMU_EVENT_MAX = 8
DESCRIPTION_BYTES = 32
ERROR_TEXT_BYTES = 128
QUEUE_RESET_INDEX = 0xFFFFFF


class QueueHeader(ctypes.LittleEndianStructure):
    """In front of a ring of `size` bytes. One byte of the ring always stays free."""

    _fields_ = (("size", c_uint32), ("read", c_uint32), ("pad", c_uint32 * 6), ("write", c_uint32))


class QueueHeaderShort(ctypes.LittleEndianStructure):
    """The header before 2022-06-28, and in NXP's copy: not padded to separate cache lines."""

    _fields_ = (("size", c_uint32), ("read", c_uint32), ("write", c_uint32))


class MessageType(IntEnum):
    ERR = 1
    PING = 2
    PONG = 3
    INFERENCE_REQ = 4
    INFERENCE_RSP = 5
    VERSION_REQ = 6
    VERSION_RSP = 7
    CAPABILITIES_REQ = 8
    CAPABILITIES_RSP = 9
    NETWORK_INFO_REQ = 10
    NETWORK_INFO_RSP = 11
    CANCEL_INFERENCE_REQ = 12
    CANCEL_INFERENCE_RSP = 13
    NETWORK_LAYOUT_REQ = 0x4E500001
    """Not Arm's: ours, for what NXP's UAPI asks of a network and Arm's messages do not tell. The payload is
    that of NETWORK_INFO_REQ."""
    NETWORK_LAYOUT_RSP = 0x4E500002


class CoreStatus(IntEnum):
    """`status` of the answers; the UAPI has the same numbers."""

    OK = 0
    ERROR = 1
    RUNNING = 2
    REJECTED = 3
    ABORTED = 4
    ABORTING = 5


class ErrorType(IntEnum):
    """`ErrorMessage.type`."""

    GENERIC = 0
    UNSUPPORTED_TYPE = 1
    INVALID_PAYLOAD = 2
    INVALID_SIZE = 3
    INVALID_MAGIC = 4


class NetworkType(IntEnum):
    """`Network.type`."""

    BUFFER = 1
    INDEX = 2


class Message(ctypes.LittleEndianStructure):
    """The header of each message; `length` is the payload's, in bytes."""

    _fields_ = (("magic", c_uint32), ("type", c_uint32), ("length", c_uint32))


class Buffer(ctypes.LittleEndianStructure):
    """Memory by its address as the subsystem sees it."""

    _fields_ = (("ptr", c_uint32), ("size", c_uint32))


class Network(ctypes.LittleEndianStructure):
    """A .tflite in memory (`NetworkType.BUFFER`), or one of the firmware's own (`ptr` is its index)."""

    _fields_ = (("type", c_uint32), ("ptr", c_uint32), ("size", c_uint32))


class Empty(ctypes.LittleEndianStructure):
    """The payload of PING, PONG and VERSION_REQ: zero bytes."""

    _fields_ = ()


class InferenceReq(ctypes.LittleEndianStructure):
    """`user_arg` is the driver's id of the request: every answer carries it back."""

    _fields_ = (
        ("user_arg", c_uint64),
        ("ifm_count", c_uint32),
        ("ifm", Buffer * BUFFER_MAX),
        ("ofm_count", c_uint32),
        ("ofm", Buffer * BUFFER_MAX),
        ("network", Network),
        ("pmu_event_config", c_uint8 * PMU_EVENT_MAX),
        ("pmu_cycle_counter_enable", c_uint32),
    )


class InferenceRsp(ctypes.LittleEndianStructure):
    """Of a failure only `user_arg` and `status` count. `ofm_size` is in bytes."""

    _fields_ = (
        ("user_arg", c_uint64),
        ("ofm_count", c_uint32),
        ("ofm_size", c_uint32 * BUFFER_MAX),
        ("status", c_uint32),
        ("pmu_event_config", c_uint8 * PMU_EVENT_MAX),
        ("pmu_event_count", c_uint32 * PMU_EVENT_MAX),
        ("pmu_cycle_counter_enable", c_uint32),
        ("pmu_cycle_counter_count", c_uint64),
    )


class VersionRsp(ctypes.LittleEndianStructure):
    _fields_ = (("major", c_uint8), ("minor", c_uint8), ("patch", c_uint8), ("reserved", c_uint8))


class CapabilitiesReq(ctypes.LittleEndianStructure):
    _fields_ = (("user_arg", c_uint64),)


class CapabilitiesRsp(ctypes.LittleEndianStructure):
    """Fields of the NPU's ID and CONFIG registers, and the version of the Cortex-M's own NPU driver."""

    _fields_ = (
        ("user_arg", c_uint64),
        ("version_status", c_uint32),
        ("version_minor", c_uint32),
        ("version_major", c_uint32),
        ("product_major", c_uint32),
        ("arch_patch_rev", c_uint32),
        ("arch_minor_rev", c_uint32),
        ("arch_major_rev", c_uint32),
        ("driver_patch_rev", c_uint32),
        ("driver_minor_rev", c_uint32),
        ("driver_major_rev", c_uint32),
        ("macs_per_cc", c_uint32),
        ("cmd_stream_version", c_uint32),
        ("custom_dma", c_uint32),
    )


class NetworkInfoReq(ctypes.LittleEndianStructure):
    _fields_ = (("user_arg", c_uint64), ("network", Network))


class NetworkInfoRsp(ctypes.LittleEndianStructure):
    """Sizes in bytes. Of a failure only `user_arg` and `status` count."""

    _fields_ = (
        ("user_arg", c_uint64),
        ("desc", c_char * DESCRIPTION_BYTES),
        ("ifm_count", c_uint32),
        ("ifm_size", c_uint32 * BUFFER_MAX),
        ("ofm_count", c_uint32),
        ("ofm_size", c_uint32 * BUFFER_MAX),
        ("status", c_uint32),
    )


class CancelInferenceReq(ctypes.LittleEndianStructure):
    """`inference_handle` is the `user_arg` of the request to cancel."""

    _fields_ = (("user_arg", c_uint64), ("inference_handle", c_uint64))


class CancelInferenceRsp(ctypes.LittleEndianStructure):
    _fields_ = (("user_arg", c_uint64), ("status", c_uint32))


class ErrorMessage(ctypes.LittleEndianStructure):
    """The firmware could not read a message and has dropped everything in in_queue."""

    _fields_ = (("type", c_uint32), ("msg", c_char * ERROR_TEXT_BYTES))


DIM_MAX = 8


class TensorLayout(ctypes.LittleEndianStructure):
    """Ours: one input or output. `type` is TFLite's number, `offset` is in bytes from the arena's start."""

    _fields_ = (
        ("size", c_uint32),
        ("type", c_uint32),
        ("offset", c_uint32),
        ("dims", c_uint32),
        ("shape", c_uint32 * DIM_MAX),
    )


class NetworkLayoutRsp(ctypes.LittleEndianStructure):
    """Ours. `is_vela` says whether any operator runs on the NPU; `arena_size` is in bytes."""

    _fields_ = (
        ("user_arg", c_uint64),
        ("desc", c_char * DESCRIPTION_BYTES),
        ("is_vela", c_uint32),
        ("arena_size", c_uint32),
        ("ifm_count", c_uint32),
        ("ofm_count", c_uint32),
        ("ifm", TensorLayout * BUFFER_MAX),
        ("ofm", TensorLayout * BUFFER_MAX),
        ("status", c_uint32),
    )


PAYLOADS: dict[MessageType, type[ctypes.LittleEndianStructure]] = {
    MessageType.ERR: ErrorMessage,
    MessageType.PING: Empty,
    MessageType.PONG: Empty,
    MessageType.INFERENCE_REQ: InferenceReq,
    MessageType.INFERENCE_RSP: InferenceRsp,
    MessageType.VERSION_REQ: Empty,
    MessageType.VERSION_RSP: VersionRsp,
    MessageType.CAPABILITIES_REQ: CapabilitiesReq,
    MessageType.CAPABILITIES_RSP: CapabilitiesRsp,
    MessageType.NETWORK_INFO_REQ: NetworkInfoReq,
    MessageType.NETWORK_INFO_RSP: NetworkInfoRsp,
    MessageType.CANCEL_INFERENCE_REQ: CancelInferenceReq,
    MessageType.CANCEL_INFERENCE_RSP: CancelInferenceRsp,
    MessageType.NETWORK_LAYOUT_REQ: NetworkInfoReq,
    MessageType.NETWORK_LAYOUT_RSP: NetworkLayoutRsp,
}
