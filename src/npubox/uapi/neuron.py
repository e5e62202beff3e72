# SPDX-License-Identifier: Apache-2.0
"""The ioctls of /dev/neuron<N>: numbers and enumerations of the Neuron kernel module's ABI, version 2.24.

Most numbers encode the size of a pointer, not of their struct, and their direction bits are not
reliable: `IOCTLS` says which struct each takes. Source: the project's facts (neuron.md §3.1, §3.2).
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Any

from npubox.uapi import neuron_structs as structs
from npubox.uapi.ioctl import Empty, Ioctl, StructT

NEURON = "N"
DRIVER_NAME = "neuron"
NC_SLOTS = 512  # core indices of a system: 64 devices of 8
PROCESSES = 16  # processes that may be attached to a device
WHOLE_DEVICE = 0xFFFF_FFFF  # `DeviceReset.nc_map`
NO_OFFSET = 0xFFFF_FFFF_FFFF_FFFF  # `mmap_offset` of a notification queue in device memory
DATASTORE_SIZE = 0x40000


class Architecture(IntEnum):
    """`architecture` of several structs."""

    V1 = 1
    V2 = 2
    V3 = 3


class Feature(IntFlag):
    """`DeviceDriverInfo.feature_flags1`."""

    DMABUF = 1 << 0
    ASYNC_DMA = 1 << 1
    BATCH_DMAQ_INIT = 1 << 2
    BIG_CORE_MAPS = 1 << 3
    MEM_ALLOC_TYPE = 1 << 4
    HBM_SCRUB = 1 << 5
    MEM_ALLOC64 = 1 << 6
    CONTIGUOUS_SCRATCHPAD = 1 << 7


class AppsInfo(IntFlag):
    """`GetAppsInfo.apps_info_flags`."""

    LOCKS = 1
    MEMORY = 2


class QueueType(IntEnum):
    """`queue_type` of descriptors."""

    TX = 0
    RX = 1
    COMPLETION = 2


class NqDevice(IntEnum):
    """`nq_dev_type`."""

    CORE = 0
    TOP_SP = 1


class NqType(IntEnum):
    """`nq_type`."""

    TRACE = 0
    NOTIFY = 1
    EVENT = 2
    ERROR = 3
    TRACE_DMA = 4
    THROTTLE = 5


class EngineState(IntEnum):
    """`DmaEngSetState.state`."""

    DISABLE = 0
    NORMAL = 2
    ABORT = 3


class EngineStatus(IntEnum):
    """`NeuronDmaEngState.tx_state` and `rx_state`."""

    IDLE = 1
    NORMAL = 2
    ABORT = 3


class CoreState(IntEnum):
    """`CinitSet.state` and `new_state`."""

    STARTED = 1
    COMPLETED = 2
    INVALID = 3


class Block(IntEnum):
    """`ResourceMmapInfo.block`."""

    TPB = 0
    TOP_SP = 1
    HBM = 2


class Resource(IntEnum):
    """`ResourceMmapInfo.resource`."""

    SEMAPHORE = 0
    ALL = 1
    SBUF = 2
    DMEM = 3


class PodState(IntEnum):
    """`state` of the pod structs."""

    NOT_STARTED = 0
    IN_PROGRESS = 1
    ULTRASERVER = 2
    FAILED = 3
    SINGLE_NODE = 4


class MemType(IntEnum):
    """`mem_type` of an allocation."""

    UNKNOWN_HOST = 0
    CODE_HOST = 1
    TENSORS_HOST = 2
    CONSTANTS_HOST = 3
    MISC_HOST = 4
    NCDEV_HOST = 5
    NOTIFICATION_HOST = 6
    UNKNOWN_DEV = 7
    CODE_DEV = 8
    TENSORS_DEV = 9
    CONSTANTS_DEV = 10
    SCRATCHPAD_DEV = 11
    MISC_DEV = 12
    NCDEV_DEV = 13
    COLLECTIVES_DEV = 14
    SCRATCHPAD_NONSHARED_DEV = 15
    NOTIFICATION_DEV = 16
    DMA_RINGS_HOST = 17
    DMA_RINGS_DEV = 18
    CONTIGUOUS_SCRATCHPAD_DEV = 19


def _ioctl(name: str, number: int, struct: type[StructT]) -> Ioctl[StructT]:
    return Ioctl(f"NEURON_IOCTL_{name}", number, struct)


DEVICE_RESET = _ioctl("DEVICE_RESET", 0x00004E01, Empty)
DEVICE_READY = _ioctl("DEVICE_READY", 0x80014E02, structs.Byte)
DEVICE_INFO = _ioctl("DEVICE_INFO", 0x80084E03, structs.DeviceInfo)
DEVICE_INIT = _ioctl("DEVICE_INIT", 0x80084E04, structs.DeviceInit)
DEVICE_RELEASE = _ioctl("DEVICE_RELEASE", 0x00004E05, Empty)
DEVICE_APP_PID = _ioctl("DEVICE_APP_PID", 0x80044E06, structs.Int)
DEVICE_GET_ALL_APPS_INFO = _ioctl("DEVICE_GET_ALL_APPS_INFO", 0x80084E07, structs.GetAppsInfo)
BAR_READ = _ioctl("BAR_READ", 0x80084E0B, structs.BarRw)
BAR_WRITE = _ioctl("BAR_WRITE", 0x40084E0C, structs.BarRw)
POST_METRIC = _ioctl("POST_METRIC", 0x40084E0D, structs.PostMetric)
MEM_ALLOC = _ioctl("MEM_ALLOC", 0x80084E15, structs.MemAlloc)
MEM_ALLOC_V2 = _ioctl("MEM_ALLOC_V2", 0x80084E66, structs.MemAllocV2)
MEM_ALLOC_V2MT = _ioctl("MEM_ALLOC_V2MT", 0x80304E66, structs.MemAllocV2MemType)
MEM_ALLOC_V2MT64 = _ioctl("MEM_ALLOC_V2MT64", 0x80384E66, structs.MemAllocV2MemType64)
MEM_FREE = _ioctl("MEM_FREE", 0x80084E16, structs.MemFree)
MEM_COPY = _ioctl("MEM_COPY", 0x80084E17, structs.MemCopy)
MEM_COPY64 = _ioctl("MEM_COPY64", 0x80284E17, structs.MemCopy64)
MEM_BUF_COPY = _ioctl("MEM_BUF_COPY", 0xC0084E18, structs.MemBufCopy)
MEM_BUF_COPY64 = _ioctl("MEM_BUF_COPY64", 0xC0284E18, structs.MemBufCopy64)
MEM_GET_PA = _ioctl("MEM_GET_PA", 0x80084E19, structs.MemGetPa)
MEM_GET_INFO = _ioctl("MEM_GET_INFO", 0x80084E1A, structs.MemGetInfo)
PROGRAM_ENGINE = _ioctl("PROGRAM_ENGINE", 0xC0084E1B, structs.ProgramEngine)
MEMSET = _ioctl("MEMSET", 0x80084E1C, structs.Memset)
MEMSET64 = _ioctl("MEMSET64", 0x80204E1C, structs.Memset64)
MEM_GET_EXTENDED_INFO = _ioctl("MEM_GET_EXTENDED_INFO", 0x80084E1D, structs.MemGetExtendedInfo)
DMA_ENG_INIT = _ioctl("DMA_ENG_INIT", 0x80084E1E, structs.DmaEngInit)
DMA_ENG_SET_STATE = _ioctl("DMA_ENG_SET_STATE", 0x80084E1F, structs.DmaEngSetState)
DMA_ENG_GET_STATE = _ioctl("DMA_ENG_GET_STATE", 0xC0084E20, structs.DmaEngGetState)
DMA_QUEUE_INIT = _ioctl("DMA_QUEUE_INIT", 0x80084E21, structs.DmaQueueInit)
DMA_QUEUE_RELEASE = _ioctl("DMA_QUEUE_RELEASE", 0x80084E22, structs.DmaQueueRelease)
DMA_QUEUE_COPY_START = _ioctl("DMA_QUEUE_COPY_START", 0x80084E23, structs.DmaQueueCopyStart)
DMA_ACK_COMPLETED = _ioctl("DMA_ACK_COMPLETED", 0x80084E24, structs.DmaAckCompleted)
DMA_QUEUE_GET_STATE = _ioctl("DMA_QUEUE_GET_STATE", 0xC0084E25, structs.DmaQueueGetState)
DMA_COPY_DESCRIPTORS = _ioctl("DMA_COPY_DESCRIPTORS", 0x80084E26, structs.DmaCopyDescriptors)
DMA_COPY_DESCRIPTORS64 = _ioctl("DMA_COPY_DESCRIPTORS64", 0x80284E26, structs.DmaCopyDescriptors64)
DMA_DESCRIPTOR_COPYOUT = _ioctl("DMA_DESCRIPTOR_COPYOUT", 0xC0084E27, structs.DmaDescriptorCopyout)
DMA_QUIESCE_QUEUES = _ioctl("DMA_QUIESCE_QUEUES", 0x80084E28, Empty)
SEMAPHORE_INCREMENT = _ioctl("SEMAPHORE_INCREMENT", 0x80084E29, structs.Semaphore)
SEMAPHORE_DECREMENT = _ioctl("SEMAPHORE_DECREMENT", 0x80084E2A, structs.Semaphore)
SEMAPHORE_READ = _ioctl("SEMAPHORE_READ", 0xC0084E2B, structs.Semaphore)
SEMAPHORE_WRITE = _ioctl("SEMAPHORE_WRITE", 0x80084E2C, structs.Semaphore)
EVENT_SET = _ioctl("EVENT_SET", 0x80084E2D, structs.Event)
EVENT_GET = _ioctl("EVENT_GET", 0xC0084E2E, structs.Event)
NOTIFICATIONS_INIT_V1 = _ioctl("NOTIFICATIONS_INIT_V1", 0x80084E33, structs.NotificationsInitV1)
NOTIFICATIONS_DESTROY_V1 = _ioctl("NOTIFICATIONS_DESTROY_V1", 0x80084E34, structs.NotificationsDestroy)
NOTIFICATIONS_INIT_V2 = _ioctl("NOTIFICATIONS_INIT_V2", 0x80084E35, structs.NotificationsInitV2)
NOTIFICATIONS_INIT_WITH_REALLOC_V2 = _ioctl(
    "NOTIFICATIONS_INIT_WITH_REALLOC_V2", 0x80084E36, structs.NotificationsInitWithReallocV2
)
NOTIFICATIONS_QUEUE_INFO = _ioctl("NOTIFICATIONS_QUEUE_INFO", 0x80084E3A, structs.NotificationsQueueInfo)
READ_HW_COUNTERS = _ioctl("READ_HW_COUNTERS", 0x80084E3D, structs.ReadHwCounters)
ACQUIRE_NEURON_DS = _ioctl("ACQUIRE_NEURON_DS", 0x80084E47, structs.NeuronDsInfo)
RELEASE_NEURON_DS = _ioctl("RELEASE_NEURON_DS", 0x80084E48, structs.NeuronDsInfo)
CRWL_READER_ENTER = _ioctl("CRWL_READER_ENTER", 0x40084E51, structs.Crwl)
CRWL_READER_EXIT = _ioctl("CRWL_READER_EXIT", 0x40084E52, structs.Crwl)
CRWL_WRITER_ENTER = _ioctl("CRWL_WRITER_ENTER", 0x40084E53, structs.Crwl)
CRWL_WRITER_DOWNGRADE = _ioctl("CRWL_WRITER_DOWNGRADE", 0x40084E54, structs.Crwl)
CRWL_NC_RANGE_MARK = _ioctl("CRWL_NC_RANGE_MARK", 0x40084E55, structs.CrwlNcMap)
CRWL_NC_RANGE_MARK_EXT0 = _ioctl("CRWL_NC_RANGE_MARK_EXT0", 0xC0504E55, structs.CrwlNcMapExt)
CRWL_NC_RANGE_UNMARK = _ioctl("CRWL_NC_RANGE_UNMARK", 0x40084E56, structs.CrwlNcMap)
CRWL_NC_RANGE_UNMARK_EXT0 = _ioctl("CRWL_NC_RANGE_UNMARK_EXT0", 0x40504E56, structs.CrwlNcMapExt)
CINIT_SET_STATE = _ioctl("CINIT_SET_STATE", 0x40084E5B, structs.CinitSet)
NC_MODEL_STARTED_COUNT = _ioctl("NC_MODEL_STARTED_COUNT", 0x40084E5C, structs.NcModelStartedCount)
COMPATIBLE_VERSION = _ioctl("COMPATIBLE_VERSION", 0x40084E5D, structs.CompatibleVersion)
DEVICE_BASIC_INFO = _ioctl("DEVICE_BASIC_INFO", 0x40084E64, structs.DeviceBasicInfo)
DEVICE_BDF = _ioctl("DEVICE_BDF", 0x80084E65, structs.DeviceBdf)
NC_RESET = _ioctl("NC_RESET", 0x80084E67, structs.DeviceReset)
NC_RESET_READY = _ioctl("NC_RESET_READY", 0x80084E68, structs.DeviceReady)
PROGRAM_ENGINE_NC = _ioctl("PROGRAM_ENGINE_NC", 0xC0084E69, structs.ProgramEngineNc)
PROGRAM_ENGINE_NC64 = _ioctl("PROGRAM_ENGINE_NC64", 0xC0284E69, structs.ProgramEngineNc64)
DEVICE_RESET_STATUS = _ioctl("DEVICE_RESET_STATUS", 0x80014E6A, structs.Byte)
DEVICE_BDF_EXT = _ioctl("DEVICE_BDF_EXT", 0x80084E6A, structs.DeviceBdfExt)
DMABUF_FD = _ioctl("DMABUF_FD", 0x80084E6B, structs.DmabufFd)
MEM_COPY_ASYNC = _ioctl("MEM_COPY_ASYNC", 0xC0304E6C, structs.MemCopyAsync)
MEM_COPY_ASYNC64 = _ioctl("MEM_COPY_ASYNC64", 0xC0384E6C, structs.MemCopyAsync64)
MEM_COPY_ASYNC_WAIT = _ioctl("MEM_COPY_ASYNC_WAIT", 0x40184E6D, structs.MemCopyAsyncWait)
DRIVER_INFO_GET = _ioctl("DRIVER_INFO_GET", 0x80184E6E, structs.DeviceDriverInfo)
DRIVER_INFO_SET = _ioctl("DRIVER_INFO_SET", 0x40184E6E, structs.DeviceDriverInfo)
MEM_MC_GET_INFO = _ioctl("MEM_MC_GET_INFO", 0xC0184E6F, structs.MemGetMcMmapInfo)
MEM_MC_GET_INFO_V2 = _ioctl("MEM_MC_GET_INFO_V2", 0xC0204E6F, structs.MemGetMcMmapInfoV2)
RESOURCE_MMAP_INFO = _ioctl("RESOURCE_MMAP_INFO", 0xC0204E70, structs.ResourceMmapInfo)
PRINTK = _ioctl("PRINTK", 0x40104E71, structs.Printk)
HOST_DEVICE_ID = _ioctl("HOST_DEVICE_ID", 0x80044E72, structs.HostDeviceId)
HOST_DEVICE_ID_TO_RID_MAP = _ioctl("HOST_DEVICE_ID_TO_RID_MAP", 0xC1044E73, structs.HostDeviceIdToRidMap)
DUMP_MEM_CHUNKS = _ioctl("DUMP_MEM_CHUNKS", 0x80084E74, structs.DumpMemChunks)
NC_PID_STATE_DUMP = _ioctl("NC_PID_STATE_DUMP", 0xC0104E75, structs.NcPidStateDump)
HBM_SCRUB_START = _ioctl("HBM_SCRUB_START", 0xC0104E76, structs.HbmScrubStart)
HBM_SCRUB_WAIT = _ioctl("HBM_SCRUB_WAIT", 0xC0084E77, structs.HbmScrubWait)
GET_LOGICAL_TO_PHYSICAL_NC_MAP = _ioctl(
    "GET_LOGICAL_TO_PHYSICAL_NC_MAP", 0xC0104E78, structs.GetLogicalToPhysicalNcMap
)
POD_INFO = _ioctl("POD_INFO", 0xC1044E79, structs.PodInfo)
POD_STATUS = _ioctl("POD_STATUS", 0xC10C4E7A, structs.PodStatus)
POD_STATUS_V2 = _ioctl("POD_STATUS_V2", 0xC1144E7A, structs.PodStatusV2)
POD_CTRL = _ioctl("POD_CTRL", 0xC0104E7B, structs.PodCtrl)
POD_CTRL_V2 = _ioctl("POD_CTRL_V2", 0xC0144E7B, structs.PodCtrlV2)
MEM_BUF_ZEROCOPY64 = _ioctl("MEM_BUF_ZEROCOPY64", 0xC0284E7C, structs.MemBufCopy64)
DMA_QUEUE_INIT_BATCH = _ioctl("DMA_QUEUE_INIT_BATCH", 0xB0084E85, structs.DmaQueueInitBatch)
IOCTLS: tuple[Ioctl[Any], ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Ioctl)
)
