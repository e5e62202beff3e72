# SPDX-License-Identifier: Apache-2.0
"""The argument structs of /dev/neuron<N>, the Neuron kernel module's ABI.

A user pointer is a u64. Sizes and offsets in bytes. Source: the project's facts (neuron.md §3.3).
"""

from __future__ import annotations

import ctypes
from ctypes import c_int8, c_int32, c_uint8, c_uint16, c_uint32, c_uint64


class Byte(ctypes.Structure):
    """A bare u8."""

    _fields_ = (("value", c_uint8),)


class Int(ctypes.Structure):
    """A bare s32."""

    _fields_ = (("value", c_int32),)


class NeuronUuid(ctypes.Structure):
    """struct neuron_uuid."""

    _fields_ = (("value", c_uint8 * 32),)


class NeuronAppInfo(ctypes.Structure):
    """struct neuron_app_info."""

    _fields_ = (
        ("pid", c_int32),
        ("nc_lock_map", c_uint8),
        ("uuid_data", NeuronUuid * 4),
        ("host_mem_size", c_uint64),
        ("device_mem_size", c_uint64),
    )


class NcMapEntry(ctypes.Structure):
    """struct nc_map_entry."""

    _fields_ = (("device_id", c_uint32), ("device_nc_idx", c_uint32))


class NeuronDmaEngState(ctypes.Structure):
    """struct neuron_dma_eng_state."""

    _fields_ = (
        ("revision_id", c_uint32),
        ("max_queues", c_uint32),
        ("num_queues", c_uint32),
        ("tx_state", c_uint32),
        ("rx_state", c_uint32),
    )


class NeuronDmaQueueState(ctypes.Structure):
    """struct neuron_dma_queue_state."""

    _fields_ = (
        ("hw_status", c_uint32),
        ("sw_status", c_uint32),
        ("base_addr", c_uint64),
        ("length", c_uint32),
        ("head_pointer", c_uint32),
        ("tail_pointer", c_uint32),
        ("completion_base_addr", c_uint64),
        ("completion_head", c_uint32),
    )


class MemChunkInfo(ctypes.Structure):
    """struct mem_chunk_info."""

    _fields_ = (("pa", c_uint64), ("size", c_uint64), ("mem_type", c_uint32))


class NcMap(ctypes.Structure):
    """struct nc_map: `num_entries` elements of NcMapEntry follow it."""

    _fields_ = (("num_entries", c_uint32), ("mappings", NcMapEntry * 0))


class MemAlloc(ctypes.Structure):
    """struct neuron_ioctl_mem_alloc: `mem_handle` points to the u64 that takes the handle."""

    _fields_ = (
        ("size", c_uint64),
        ("host_memory", c_uint32),
        ("dram_channel", c_uint32),
        ("dram_region", c_uint32),
        ("nc_id", c_uint32),
        ("mem_handle", c_uint64),
    )


class MemAllocV2(ctypes.Structure):
    """struct neuron_ioctl_mem_alloc_v2."""

    _fields_ = (
        ("size", c_uint64),
        ("align", c_uint64),
        ("host_memory", c_uint32),
        ("dram_channel", c_uint32),
        ("dram_region", c_uint32),
        ("nc_id", c_uint32),
        ("mem_handle", c_uint64),
    )


class MemAllocV2MemType(ctypes.Structure):
    """struct neuron_ioctl_mem_alloc_v2_mem_type."""

    _fields_ = (
        ("size", c_uint64),
        ("align", c_uint64),
        ("host_memory", c_uint32),
        ("dram_channel", c_uint32),
        ("dram_region", c_uint32),
        ("nc_id", c_uint32),
        ("mem_type", c_uint32),
        ("mem_handle", c_uint64),
    )


class MemAllocV2MemType64(ctypes.Structure):
    """struct neuron_ioctl_mem_alloc_v2_mem_type64."""

    _fields_ = (
        ("size", c_uint64),
        ("align", c_uint64),
        ("host_memory", c_uint32),
        ("dram_channel", c_uint32),
        ("dram_region", c_uint32),
        ("nc_id", c_uint32),
        ("mem_type", c_uint32),
        ("mem_handle", c_uint64),
        ("pad", c_uint32),
    )


class DeviceInit(ctypes.Structure):
    """struct neuron_ioctl_device_init."""

    _fields_ = (("mem_regions", c_uint32),)


class DeviceReset(ctypes.Structure):
    """struct neuron_ioctl_device_reset."""

    _fields_ = (("nc_map", c_uint32), ("request_id", c_uint32))


class DeviceReady(ctypes.Structure):
    """struct neuron_ioctl_device_ready."""

    _fields_ = (("request_id", c_uint32), ("result", c_int32))


class MemGetInfo(ctypes.Structure):
    """struct neuron_ioctl_mem_get_info."""

    _fields_ = (("mem_handle", c_uint64), ("mmap_offset", c_uint64), ("pa", c_uint64))


class GetAppsInfo(ctypes.Structure):
    """struct neuron_ioctl_get_apps_info: `capacity` elements of NeuronAppInfo follow it."""

    _fields_ = (
        ("apps_info_flags", c_uint16),
        ("capacity", c_uint32),
        ("size", c_uint32),
        ("app_data", NeuronAppInfo * 0),
    )


class MemGetPa(ctypes.Structure):
    """struct neuron_ioctl_mem_get_pa."""

    _fields_ = (("mem_handle", c_uint64), ("pa", c_uint64))


class MemGetExtendedInfo(ctypes.Structure):
    """struct neuron_ioctl_mem_get_extended_info."""

    _fields_ = (
        ("mem_handle", c_uint64),
        ("version", c_uint32),
        ("host_memory", c_uint32),
        ("mmap_offset", c_uint64),
        ("pa", c_uint64),
        ("pid", c_uint64),
        ("size", c_uint64),
    )


class MemFree(ctypes.Structure):
    """struct neuron_ioctl_mem_free."""

    _fields_ = (("mem_handle", c_uint64),)


class MemCopy(ctypes.Structure):
    """struct neuron_ioctl_mem_copy: Sizes and offsets in bytes."""

    _fields_ = (
        ("src_mem_handle", c_uint64),
        ("dst_mem_handle", c_uint64),
        ("size", c_uint32),
        ("src_offset", c_uint32),
        ("dst_offset", c_uint32),
    )


class MemCopy64(ctypes.Structure):
    """struct neuron_ioctl_mem_copy64."""

    _fields_ = (
        ("src_mem_handle", c_uint64),
        ("dst_mem_handle", c_uint64),
        ("size", c_uint64),
        ("src_offset", c_uint64),
        ("dst_offset", c_uint64),
    )


class MemCopyAsync(ctypes.Structure):
    """struct neuron_ioctl_mem_copy_async."""

    _fields_ = (
        ("src_mem_handle", c_uint64),
        ("dst_mem_handle", c_uint64),
        ("size", c_uint32),
        ("src_offset", c_uint32),
        ("dst_offset", c_uint32),
        ("host_prefetch_addr", c_uint64),
        ("pwait_handle", c_uint32),
        ("wait_handle", c_uint32),
    )


class MemCopyAsync64(ctypes.Structure):
    """struct neuron_ioctl_mem_copy_async64."""

    _fields_ = (
        ("src_mem_handle", c_uint64),
        ("dst_mem_handle", c_uint64),
        ("size", c_uint64),
        ("src_offset", c_uint64),
        ("dst_offset", c_uint64),
        ("host_prefetch_addr", c_uint64),
        ("pwait_handle", c_uint32),
        ("wait_handle", c_uint32),
    )


class MemCopyAsyncWait(ctypes.Structure):
    """struct neuron_ioctl_mem_copy_async_wait."""

    _fields_ = (("src_mem_handle", c_uint64), ("dst_mem_handle", c_uint64), ("pwait_handle", c_uint32))


class Memset(ctypes.Structure):
    """struct neuron_ioctl_memset."""

    _fields_ = (("mem_handle", c_uint64), ("offset", c_uint64), ("value", c_uint32), ("size", c_uint32))


class Memset64(ctypes.Structure):
    """struct neuron_ioctl_memset64."""

    _fields_ = (("mem_handle", c_uint64), ("offset", c_uint64), ("value", c_uint32), ("size", c_uint64))


class MemBufCopy(ctypes.Structure):
    """struct neuron_ioctl_mem_buf_copy."""

    _fields_ = (
        ("mem_handle", c_uint64),
        ("buffer", c_uint64),
        ("size", c_uint32),
        ("offset", c_uint32),
        ("copy_to_mem_handle", c_uint32),
    )


class MemBufCopy64(ctypes.Structure):
    """struct neuron_ioctl_mem_buf_copy64."""

    _fields_ = (
        ("mem_handle", c_uint64),
        ("buffer", c_uint64),
        ("size", c_uint64),
        ("offset", c_uint64),
        ("copy_to_mem_handle", c_uint32),
    )


class ProgramEngine(ctypes.Structure):
    """struct neuron_ioctl_program_engine."""

    _fields_ = (("dst", c_uint64), ("buffer", c_uint64), ("size", c_uint32), ("offset", c_uint32))


class ProgramEngineNc(ctypes.Structure):
    """struct neuron_ioctl_program_engine_nc."""

    _fields_ = (
        ("nc_id", c_uint32),
        ("dst", c_uint64),
        ("buffer", c_uint64),
        ("size", c_uint32),
        ("offset", c_uint32),
    )


class ProgramEngineNc64(ctypes.Structure):
    """struct neuron_ioctl_program_engine_nc64."""

    _fields_ = (
        ("nc_id", c_uint32),
        ("dst", c_uint64),
        ("buffer", c_uint64),
        ("size", c_uint64),
        ("offset", c_uint64),
    )


class BarRw(ctypes.Structure):
    """struct neuron_ioctl_bar_rw: `address` points to `count` u64, `data` to `count` u32."""

    _fields_ = (("bar", c_uint32), ("address", c_uint64), ("data", c_uint64), ("count", c_uint32))


class PostMetric(ctypes.Structure):
    """struct neuron_ioctl_post_metric."""

    _fields_ = (("data", c_uint64), ("data_size", c_uint32))


class DmaCopyDescriptors(ctypes.Structure):
    """struct neuron_ioctl_dma_copy_descriptors: `num_descs` descriptors of 16 bytes at `buffer`."""

    _fields_ = (
        ("mem_handle", c_uint64),
        ("buffer", c_uint64),
        ("num_descs", c_uint32),
        ("offset", c_uint32),
        ("queue_type", c_uint32),
    )


class DmaCopyDescriptors64(ctypes.Structure):
    """struct neuron_ioctl_dma_copy_descriptors64."""

    _fields_ = (
        ("mem_handle", c_uint64),
        ("buffer", c_uint64),
        ("num_descs", c_uint32),
        ("offset", c_uint64),
        ("queue_type", c_uint32),
    )


class DmaQueueInit(ctypes.Structure):
    """struct neuron_ioctl_dma_queue_init."""

    _fields_ = (
        ("eng_id", c_uint32),
        ("qid", c_uint32),
        ("tx_desc_count", c_uint32),
        ("rx_desc_count", c_uint32),
        ("tx_handle", c_uint64),
        ("rx_handle", c_uint64),
        ("rxc_handle", c_uint64),
        ("axi_port", c_uint32),
    )


class DmaQueueInitBatch(ctypes.Structure):
    """struct neuron_ioctl_dma_queue_init_batch."""

    _fields_ = (("count", c_uint32), ("entries", DmaQueueInit * 256))


class DmaQueueRelease(ctypes.Structure):
    """struct neuron_ioctl_dma_queue_release."""

    _fields_ = (("eng_id", c_uint32), ("qid", c_uint32))


class DmaAckCompleted(ctypes.Structure):
    """struct neuron_ioctl_dma_ack_completed."""

    _fields_ = (("eng_id", c_uint32), ("qid", c_uint32), ("count", c_uint32))


class DmaQueueCopyStart(ctypes.Structure):
    """struct neuron_ioctl_dma_queue_copy_start."""

    _fields_ = (
        ("eng_id", c_uint32),
        ("qid", c_uint32),
        ("tx_desc_count", c_uint32),
        ("rx_desc_count", c_uint32),
    )


class DmaEngInit(ctypes.Structure):
    """struct neuron_ioctl_dma_eng_init."""

    _fields_ = (("eng_id", c_uint32),)


class DmaEngSetState(ctypes.Structure):
    """struct neuron_ioctl_dma_eng_set_state."""

    _fields_ = (("eng_id", c_uint32), ("state", c_uint32))


class DmaEngGetState(ctypes.Structure):
    """struct neuron_ioctl_dma_eng_get_state: `state` points to a NeuronDmaEngState."""

    _fields_ = (("eng_id", c_uint32), ("state", c_uint64))


class DmaQueueGetState(ctypes.Structure):
    """struct neuron_ioctl_dma_queue_get_state: `tx` and `rx` point to a NeuronDmaQueueState each."""

    _fields_ = (("eng_id", c_uint32), ("qid", c_uint32), ("tx", c_uint64), ("rx", c_uint64))


class DmaDescriptorCopyout(ctypes.Structure):
    """struct neuron_ioctl_dma_descriptor_copyout."""

    _fields_ = (
        ("eng_id", c_uint32),
        ("qid", c_uint32),
        ("type", c_uint32),
        ("start_index", c_uint32),
        ("count", c_uint32),
        ("buffer", c_uint64),
    )


class Semaphore(ctypes.Structure):
    """struct neuron_ioctl_semaphore."""

    _fields_ = (("nc_id", c_uint32), ("semaphore_index", c_uint32), ("value", c_uint32))


class Event(ctypes.Structure):
    """struct neuron_ioctl_event."""

    _fields_ = (("nc_id", c_uint32), ("event_index", c_uint32), ("value", c_uint32))


class NotificationsInitV1(ctypes.Structure):
    """struct neuron_ioctl_notifications_init_v1."""

    _fields_ = (
        ("nc_id", c_uint32),
        ("nq_type", c_uint32),
        ("engine_index", c_uint32),
        ("size", c_uint32),
        ("mmap_offset", c_uint64),
    )


class NotificationsInitV2(ctypes.Structure):
    """struct neuron_ioctl_notifications_init_v2."""

    _fields_ = (
        ("nq_dev_id", c_uint32),
        ("nq_dev_type", c_uint32),
        ("nq_type", c_uint32),
        ("engine_index", c_uint32),
        ("size", c_uint32),
        ("on_host_memory", c_uint32),
        ("dram_channel", c_uint32),
        ("dram_region", c_uint32),
        ("mmap_offset", c_uint64),
        ("mem_handle", c_uint64),
    )


class NotificationsInitWithReallocV2(ctypes.Structure):
    """struct neuron_ioctl_notifications_init_with_realloc_v2."""

    _fields_ = (
        ("nq_dev_id", c_uint32),
        ("nq_dev_type", c_uint32),
        ("nq_type", c_uint32),
        ("engine_index", c_uint32),
        ("size", c_uint32),
        ("on_host_memory", c_uint32),
        ("dram_channel", c_uint32),
        ("dram_region", c_uint32),
        ("force_alloc_mem", c_uint32),
        ("mmap_offset", c_uint64),
        ("mem_handle", c_uint64),
    )


class NeuronDsInfo(ctypes.Structure):
    """struct neuron_ds_info: `pid` 0 asks for the datastore of the caller."""

    _fields_ = (("pid", c_int32), ("mmap_offset", c_uint64), ("size", c_uint32))


class NotificationsDestroy(ctypes.Structure):
    """struct neuron_ioctl_notifications_destroy."""

    _fields_ = (("mmap_offset", c_uint64),)


class NotificationsQueueInfo(ctypes.Structure):
    """struct neuron_ioctl_notifications_queue_info."""

    _fields_ = (
        ("nq_dev_id", c_uint8),
        ("nq_dev_type", c_uint8),
        ("nq_type", c_uint8),
        ("engine_index", c_uint8),
        ("head", c_uint32),
        ("phase_bit", c_uint32),
    )


class ReadHwCounters(ctypes.Structure):
    """struct neuron_ioctl_read_hw_counters: `count` u64 device addresses, u32 values."""

    _fields_ = (("address", c_uint64), ("data", c_uint64), ("count", c_uint32))


class Crwl(ctypes.Structure):
    """struct neuron_ioctl_crwl."""

    _fields_ = (("nc_id", c_uint32), ("uuid", NeuronUuid))


class CrwlNcMap(ctypes.Structure):
    """struct neuron_ioctl_crwl_nc_map."""

    _fields_ = (
        ("nc_count", c_uint32),
        ("start_nc_index", c_uint32),
        ("end_nc_index", c_uint32),
        ("max_nc_available", c_uint32),
        ("bitmap", c_uint64),
    )


class CrwlNcMapExt(ctypes.Structure):
    """struct neuron_ioctl_crwl_nc_map_ext."""

    _fields_ = (
        ("nc_count", c_uint32),
        ("start_nc_index", c_uint32),
        ("end_nc_index", c_uint32),
        ("max_nc_available", c_uint32),
        ("bitmap", c_uint64 * 8),
    )


class CinitSet(ctypes.Structure):
    """struct neuron_ioctl_cinit_set."""

    _fields_ = (("nc_id", c_uint32), ("state", c_uint32), ("new_state", c_uint32))


class NcModelStartedCount(ctypes.Structure):
    """struct neuron_ioctl_nc_model_started_count."""

    _fields_ = (("nc_id", c_uint32), ("started_count", c_uint64))


class CompatibleVersion(ctypes.Structure):
    """struct neuron_ioctl_compatible_version."""

    _fields_ = (("max", c_uint32), ("min", c_uint32))


class DeviceBasicInfo(ctypes.Structure):
    """struct neuron_ioctl_device_basic_info."""

    _fields_ = (("architecture", c_uint32), ("revision", c_uint32))


class DeviceBdf(ctypes.Structure):
    """struct neuron_ioctl_device_bdf."""

    _fields_ = (("bus_number", c_uint32), ("slot", c_uint8), ("func", c_uint8))


class DeviceBdfExt(ctypes.Structure):
    """struct neuron_ioctl_device_bdf_ext."""

    _fields_ = (
        ("nd_index", c_uint32),
        ("domain", c_uint32),
        ("bus_number", c_uint32),
        ("slot", c_uint8),
        ("func", c_uint8),
    )


class ResourceMmapInfo(ctypes.Structure):
    """struct neuron_ioctl_resource_mmap_info."""

    _fields_ = (
        ("block", c_uint32),
        ("block_id", c_uint32),
        ("resource", c_uint32),
        ("offset", c_uint64),
        ("size", c_uint64),
    )


class DeviceInfo(ctypes.Structure):
    """struct neuron_ioctl_device_info."""

    _fields_ = (
        ("architecture", c_uint32),
        ("revision", c_uint32),
        ("connected_device_count", c_uint32),
        ("connected_devices", c_uint32 * 8),
        ("bar_address", c_uint64 * 2),
        ("bar_size", c_uint64 * 2),
    )


class DmabufFd(ctypes.Structure):
    """struct neuron_ioctl_dmabuf_fd."""

    _fields_ = (("va", c_uint64), ("size", c_uint64), ("fd", c_uint64))


class DeviceDriverInfo(ctypes.Structure):
    """struct neuron_ioctl_device_driver_info."""

    _fields_ = (
        ("architecture", c_uint32),
        ("revision", c_uint32),
        ("version", c_uint32),
        ("size", c_uint32),
        ("feature_flags1", c_uint64),
    )


class MemGetMcMmapInfo(ctypes.Structure):
    """struct neuron_ioctl_mem_get_mc_mmap_info."""

    _fields_ = (("pa", c_uint64), ("mmap_offset", c_uint64), ("size", c_uint64))


class MemGetMcMmapInfoV2(ctypes.Structure):
    """struct neuron_ioctl_mem_get_mc_mmap_info_v2."""

    _fields_ = (("pa", c_uint64), ("mmap_offset", c_uint64), ("size", c_uint64), ("mem_handle", c_uint64))


class Printk(ctypes.Structure):
    """struct neuron_ioctl_printk."""

    _fields_ = (("buffer", c_uint64), ("size", c_uint32), ("action", c_uint32))


class HostDeviceId(ctypes.Structure):
    """struct neuron_ioctl_host_device_id."""

    _fields_ = (("host_device_id", c_uint32),)


class DumpMemChunks(ctypes.Structure):
    """struct neuron_ioctl_dump_mem_chunks: `data` points to `num_entries_in` of MemChunkInfo."""

    _fields_ = (
        ("hbm_index", c_uint32),
        ("num_entries_in", c_uint32),
        ("num_entries_out", c_uint32),
        ("data", c_uint64),
    )


class NcPidStateDump(ctypes.Structure):
    """struct neuron_ioctl_nc_pid_state_dump."""

    _fields_ = (
        ("size", c_uint32),
        ("nc_id", c_uint32),
        ("filter_log_owner", c_uint32),
        ("log_dump_limit", c_uint32),
    )


class HostDeviceIdToRidMap(ctypes.Structure):
    """struct neuron_ioctl_host_device_id_to_rid_map."""

    _fields_ = (("count", c_uint32), ("host_did_to_rid_map", c_uint32 * 64))


class HbmScrubStart(ctypes.Structure):
    """struct neuron_ioctl_hbm_scrub_start."""

    _fields_ = (("nc_id", c_uint32), ("hbm_index", c_uint32), ("axi_port", c_uint32), ("init_val", c_uint32))


class HbmScrubWait(ctypes.Structure):
    """struct neuron_ioctl_hbm_scrub_wait."""

    _fields_ = (("nc_id", c_uint32), ("hbm_index", c_uint32))


class GetLogicalToPhysicalNcMap(ctypes.Structure):
    """struct neuron_ioctl_get_logical_to_physical_nc_map."""

    _fields_ = (("map", c_uint64), ("max_map_entries", c_uint32), ("mapping_version", c_uint32))


class PodInfo(ctypes.Structure):
    """struct neuron_ioctl_pod_info."""

    _fields_ = (("sz", c_uint16), ("pod_type", c_uint8), ("pod_id", c_uint8 * 256), ("pod_sz", c_uint8))


class PodStatus(ctypes.Structure):
    """struct neuron_ioctl_pod_status."""

    _fields_ = (
        ("sz", c_uint16),
        ("pod_id", c_uint8 * 256),
        ("state", c_uint32),
        ("pod_type", c_uint8),
        ("pod_sz", c_uint8),
        ("node_id", c_int8),
    )


class PodStatusV2(ctypes.Structure):
    """struct neuron_ioctl_pod_status_v2."""

    _fields_ = (("v1", PodStatus), ("mode", c_uint32), ("modes_supported", c_uint32))


class PodCtrl(ctypes.Structure):
    """struct neuron_ioctl_pod_ctrl."""

    _fields_ = (("sz", c_uint16), ("ctrl", c_uint32), ("timeout", c_uint32), ("state", c_uint32))


class PodCtrlV2(ctypes.Structure):
    """struct neuron_ioctl_pod_ctrl_v2."""

    _fields_ = (("v1", PodCtrl), ("mode", c_uint32))
