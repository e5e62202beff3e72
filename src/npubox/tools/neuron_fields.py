# SPDX-License-Identifier: Apache-2.0
"""What the fields of /dev/neuron<N>'s structs mean beyond their C types (`npubox.tools.ioctl_fields`)."""

from __future__ import annotations

import ctypes
from ctypes import c_uint32, c_uint64
from enum import IntEnum, IntFlag

from npubox.tools.pointers import Pointer
from npubox.uapi import neuron as uapi
from npubox.uapi import neuron_structs as structs

Field = tuple[type[ctypes.Structure], str]


class Word(ctypes.Structure):
    """A u32 behind a pointer."""

    _fields_ = (("value", c_uint32),)


class Quad(ctypes.Structure):
    """A u64 behind a pointer."""

    _fields_ = (("value", c_uint64),)


class Address(ctypes.Structure):
    """An address, or the offset at which mmap finds it, behind a pointer."""

    _fields_ = (("address", c_uint64),)


class Descriptor(ctypes.Structure):
    """A DMA descriptor (facts, neuron.md §6.3)."""

    _fields_ = (("control", c_uint32), ("meta", c_uint32), ("address", c_uint64))


ENUMS: dict[Field, type[IntEnum] | type[IntFlag]] = {
    (structs.DeviceInfo, "architecture"): uapi.Architecture,
    (structs.DeviceBasicInfo, "architecture"): uapi.Architecture,
    (structs.DeviceDriverInfo, "architecture"): uapi.Architecture,
    (structs.DeviceDriverInfo, "feature_flags1"): uapi.Feature,
    (structs.GetAppsInfo, "apps_info_flags"): uapi.AppsInfo,
    (structs.MemAllocV2MemType, "mem_type"): uapi.MemType,
    (structs.MemAllocV2MemType64, "mem_type"): uapi.MemType,
    (structs.MemChunkInfo, "mem_type"): uapi.MemType,
    (structs.DmaCopyDescriptors, "queue_type"): uapi.QueueType,
    (structs.DmaCopyDescriptors64, "queue_type"): uapi.QueueType,
    (structs.DmaDescriptorCopyout, "type"): uapi.QueueType,
    (structs.DmaEngSetState, "state"): uapi.EngineState,
    (structs.NeuronDmaEngState, "tx_state"): uapi.EngineStatus,
    (structs.NeuronDmaEngState, "rx_state"): uapi.EngineStatus,
    (structs.NotificationsInitV1, "nq_type"): uapi.NqType,
    (structs.NotificationsInitV2, "nq_type"): uapi.NqType,
    (structs.NotificationsInitV2, "nq_dev_type"): uapi.NqDevice,
    (structs.NotificationsInitWithReallocV2, "nq_type"): uapi.NqType,
    (structs.NotificationsInitWithReallocV2, "nq_dev_type"): uapi.NqDevice,
    (structs.CinitSet, "state"): uapi.CoreState,
    (structs.CinitSet, "new_state"): uapi.CoreState,
    (structs.ResourceMmapInfo, "block"): uapi.Block,
    (structs.ResourceMmapInfo, "resource"): uapi.Resource,
    (structs.PodStatus, "state"): uapi.PodState,
    (structs.PodCtrl, "state"): uapi.PodState,
}

HEXADECIMAL: frozenset[Field] = frozenset(
    {
        (Word, "value"),
        (Address, "address"),
        *((Descriptor, name) for name in ("control", "meta", "address")),
        *((structs.NeuronDmaQueueState, name) for name in ("base_addr", "completion_base_addr")),
        (structs.MemChunkInfo, "pa"),
        *((structs.MemGetExtendedInfo, name) for name in ("pa", "mmap_offset")),
        *((structs.MemGetMcMmapInfo, name) for name in ("pa", "mmap_offset")),
        *((structs.MemGetMcMmapInfoV2, name) for name in ("pa", "mmap_offset")),
        (structs.NotificationsInitV1, "mmap_offset"),
        (structs.NotificationsInitV2, "mmap_offset"),
        (structs.NotificationsInitWithReallocV2, "mmap_offset"),
        (structs.NotificationsDestroy, "mmap_offset"),
        (structs.NeuronDsInfo, "mmap_offset"),
    }
)
"""Registers and addresses: as the trace shows the offset of an mmap."""

_HANDLE = Pointer(Quad, None, written=True)
_ADDRESS = Pointer(Address, None, written=True)
_GIVEN_BYTES = Pointer(None, "size")

POINTERS: dict[Field, Pointer] = {
    (structs.MemAlloc, "mem_handle"): _HANDLE,
    (structs.MemAllocV2, "mem_handle"): _HANDLE,
    (structs.MemAllocV2MemType, "mem_handle"): _HANDLE,
    (structs.MemAllocV2MemType64, "mem_handle"): _HANDLE,
    (structs.MemGetPa, "pa"): _ADDRESS,
    (structs.MemGetInfo, "pa"): _ADDRESS,
    (structs.MemGetInfo, "mmap_offset"): _ADDRESS,
    (structs.MemBufCopy, "buffer"): _GIVEN_BYTES,
    (structs.MemBufCopy64, "buffer"): _GIVEN_BYTES,
    (structs.ProgramEngine, "buffer"): _GIVEN_BYTES,
    (structs.ProgramEngineNc, "buffer"): _GIVEN_BYTES,
    (structs.ProgramEngineNc64, "buffer"): _GIVEN_BYTES,
    (structs.BarRw, "address"): Pointer(Address, "count"),
    (structs.BarRw, "data"): Pointer(Word, "count"),
    (structs.ReadHwCounters, "address"): Pointer(Address, "count"),
    (structs.ReadHwCounters, "data"): Pointer(Word, "count", written=True),
    (structs.PostMetric, "data"): Pointer(None, "data_size"),
    (structs.Printk, "buffer"): Pointer(None, "size", text=True),
    (structs.DmaCopyDescriptors, "buffer"): Pointer(Descriptor, "num_descs"),
    (structs.DmaCopyDescriptors64, "buffer"): Pointer(Descriptor, "num_descs"),
    (structs.DmaDescriptorCopyout, "buffer"): Pointer(Descriptor, "count", written=True),
    (structs.DmaEngGetState, "state"): Pointer(structs.NeuronDmaEngState, None, written=True),
    (structs.DmaQueueGetState, "tx"): Pointer(structs.NeuronDmaQueueState, None, written=True),
    (structs.DmaQueueGetState, "rx"): Pointer(structs.NeuronDmaQueueState, None, written=True),
    (structs.DumpMemChunks, "data"): Pointer(structs.MemChunkInfo, "num_entries_out", written=True),
    (structs.DmabufFd, "fd"): Pointer(structs.Int, None, written=True),
}
