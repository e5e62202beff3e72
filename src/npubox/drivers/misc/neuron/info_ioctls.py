# SPDX-License-Identifier: Apache-2.0
"""ioctls that tell about device and driver, and what is left for old programs (facts, neuron.md §3.2)."""

from __future__ import annotations

import ctypes
import errno
import logging

from npubox.drivers.misc.neuron.call import Call, ioctl
from npubox.drivers.misc.neuron.device import NeuronDevice
from npubox.drivers.misc.neuron.topology import links
from npubox.drivers.misc.neuron.work import Steps, Work
from npubox.hw.neuron.address import CORES
from npubox.hw.neuron.pci import BAR_SIZE, Bar
from npubox.uapi import neuron as uapi
from npubox.uapi import neuron_structs as structs
from npubox.uapi.neuron import Architecture, Block, Feature, PodState, Resource

NOT_SUPPORTED = 524  # the kernel's own ENOTSUPP
NEWEST_RUNTIME, OLDEST_RUNTIME = 7, 2
LONGEST_TEXT = 512
NO_NODE = -1
BAR_ADDRESSES = {Bar.APB: 0xFFFF_C900_0080_0000, Bar.AXI: 0xFFFF_C900_3000_0000}
"""Where DEVICE_INFO says that the BARs of device 0 are mapped: constants, as a program only adds offsets."""
BAR_ADDRESS_STRIDE = 0x1_0000_0000

_log = logging.getLogger(__name__)


def bar_address(device: NeuronDevice, bar: Bar) -> int:
    """The base that DEVICE_INFO tells, and BAR_READ and BAR_WRITE take."""
    return BAR_ADDRESSES[bar] + device.index * BAR_ADDRESS_STRIDE


@ioctl(uapi.DRIVER_INFO_GET, misc=True, reads=False, fills=True)
def driver_info_get(call: Call, args: structs.DeviceDriverInfo) -> None:
    args.architecture = Architecture.V1
    args.revision = call.device.revision
    args.version = 0
    args.size = ctypes.sizeof(args)
    args.feature_flags1 = sum(Feature)


@ioctl(uapi.DRIVER_INFO_SET, misc=True, reads=False)
def driver_info_set(call: Call, args: structs.DeviceDriverInfo) -> None:
    raise OSError(NOT_SUPPORTED, "driver information cannot be set")


@ioctl(uapi.DEVICE_BASIC_INFO, misc=True, reads=False, fills=True)
def device_basic_info(call: Call, args: structs.DeviceBasicInfo) -> None:
    args.architecture = Architecture.V1
    args.revision = call.device.revision


@ioctl(uapi.COMPATIBLE_VERSION, misc=True, reads=False, fills=True)
def compatible_version(call: Call, args: structs.CompatibleVersion) -> None:
    args.max, args.min = NEWEST_RUNTIME, OLDEST_RUNTIME


@ioctl(uapi.DEVICE_INFO, reads=False, fills=True)
def device_info(call: Call, args: structs.DeviceInfo) -> Work:
    device = call.device
    args.architecture = Architecture.V1
    args.revision = device.revision
    for index, bar in enumerate((Bar.APB, Bar.AXI)):
        args.bar_address[index] = bar_address(device, bar)
        args.bar_size[index] = BAR_SIZE[bar]

    def steps() -> Steps[None]:
        try:
            found = yield from links(device.fwio, device.port.clock)
        except OSError:
            found = {}  # a failure to find neighbours is none of the call
        args.connected_device_count = len(found)
        for index, neighbour in enumerate(found.values()):
            args.connected_devices[index] = neighbour

    return call.work(steps())


def _bdf(device: NeuronDevice) -> tuple[int, int, int, int]:
    domain, bus, place = device.port.identity.address.split(":")
    slot, function = place.split(".")
    return int(domain, 16), int(bus, 16), int(slot, 16), int(function, 16)


@ioctl(uapi.DEVICE_BDF, reads=False, fills=True)
def device_bdf(call: Call, args: structs.DeviceBdf) -> None:
    _, args.bus_number, args.slot, args.func = _bdf(call.device)


@ioctl(uapi.DEVICE_BDF_EXT, misc=True)
def device_bdf_ext(call: Call, args: structs.DeviceBdfExt) -> None:
    relative = ctypes.c_int32(args.nd_index).value
    other = call.driver.device(call.device.index + relative)
    args.domain, args.bus_number, args.slot, args.func = _bdf(other)


@ioctl(uapi.HOST_DEVICE_ID, reads=False, fills=True)
def host_device_id(call: Call, args: structs.HostDeviceId) -> None:
    args.host_device_id = call.device.index


@ioctl(uapi.HOST_DEVICE_ID_TO_RID_MAP, misc=True, reads=False, fills=True)
def host_device_id_to_rid_map(call: Call, args: structs.HostDeviceIdToRidMap) -> None:
    args.count = len(call.driver.devices)
    for device in call.driver.devices:
        args.host_did_to_rid_map[device.index] = device.index


@ioctl(uapi.GET_LOGICAL_TO_PHYSICAL_NC_MAP, misc=True)
def get_logical_to_physical_nc_map(call: Call, args: structs.GetLogicalToPhysicalNcMap) -> None:
    raise OSError(NOT_SUPPORTED, "this generation has no map of logical cores")


@ioctl(uapi.RESOURCE_MMAP_INFO)
def resource_mmap_info(call: Call, args: structs.ResourceMmapInfo) -> None:
    """The semaphores of a core are known here, but cannot be mapped: offset and size are 0."""
    if (args.block, args.resource) != (Block.TPB, Resource.SEMAPHORE) or args.block_id >= CORES:
        raise OSError(errno.EINVAL, f"block {args.block} has no resource {args.resource} to map")
    args.offset = args.size = 0


@ioctl(uapi.DEVICE_APP_PID, reads=False, fills=True)
def device_app_pid(call: Call, args: structs.Int) -> None:
    args.value = call.device.processes.slots[0]


@ioctl(uapi.DEVICE_GET_ALL_APPS_INFO)
def device_get_all_apps_info(call: Call, args: structs.GetAppsInfo) -> None:
    attached = [pid for pid in call.device.processes.slots if pid][: args.capacity]
    args.size = len(attached)
    data = b"".join(bytes(_app_info(call, pid, args.apps_info_flags)) for pid in attached)
    if data:
        call.write(call.address + structs.GetAppsInfo.app_data.offset, data)


def _app_info(call: Call, pid: int, flags: int) -> structs.NeuronAppInfo:
    info = structs.NeuronAppInfo(pid=pid)
    if flags & uapi.AppsInfo.LOCKS:
        for core, lock in enumerate(call.device.locks[:CORES]):
            if lock.writer == pid and lock.locked:
                info.nc_lock_map |= 1 << core
                ctypes.memmove(info.uuid_data[core].value, lock.uuid, len(lock.uuid))
    if flags & uapi.AppsInfo.MEMORY:
        mine = [chunk for chunk in call.device.memory if chunk.owner == pid]
        info.host_mem_size = sum(chunk.size for chunk in mine if chunk.host)
        info.device_mem_size = sum(chunk.size for chunk in mine if not chunk.host)
    return info


@ioctl(uapi.POD_INFO, uapi.POD_STATUS, uapi.POD_CTRL, misc=True, fills=True)
def pod(call: Call, args: structs.PodInfo | structs.PodStatus | structs.PodCtrl) -> None:
    """This generation makes no pods: type and size 0, a single node."""
    _single_node(args, args)


@ioctl(uapi.POD_STATUS_V2, uapi.POD_CTRL_V2, misc=True, fills=True)
def pod_v2(call: Call, args: structs.PodStatusV2 | structs.PodCtrlV2) -> None:
    _single_node(args, args.v1)
    args.mode = 0
    if isinstance(args, structs.PodStatusV2):
        args.modes_supported = 0


def _single_node(whole: ctypes.Structure, args: ctypes.Structure) -> None:
    if args.sz != ctypes.sizeof(whole):
        raise OSError(errno.EINVAL, f"`sz` is {args.sz}: give {ctypes.sizeof(whole)}")
    if isinstance(args, structs.PodInfo | structs.PodStatus):
        args.pod_type = args.pod_sz = 0
    if isinstance(args, structs.PodStatus | structs.PodCtrl):
        args.state = PodState.SINGLE_NODE
    if isinstance(args, structs.PodStatus):
        args.node_id = NO_NODE


@ioctl(uapi.PRINTK, misc=True)
def printk(call: Call, args: structs.Printk) -> None:
    """The program's line goes to the driver's log."""
    if args.size > LONGEST_TEXT:
        raise OSError(errno.EFAULT, f"a text of {args.size} bytes: at most {LONGEST_TEXT}")
    text = call.read(args.buffer, args.size)
    if not text.endswith(b"\0"):
        raise OSError(errno.EBADMSG, "the text does not end with a NUL")
    _log.info("%s: %s", call.device.name, text[:-1].decode("utf-8", "replace"))


@ioctl(uapi.NC_PID_STATE_DUMP, misc=True)
def nc_pid_state_dump(call: Call, args: structs.NcPidStateDump) -> None:
    """Who has a core goes to the driver's log, not to the caller."""
    if args.nc_id >= uapi.NC_SLOTS:
        raise OSError(errno.ENOENT, f"there is no core {args.nc_id}")
    slot = call.device.index * CORES + args.nc_id
    owner = call.driver.marks.owner(slot) if slot < uapi.NC_SLOTS else 0
    _log.info("%s: core %d is marked by process %d", call.device.name, args.nc_id, owner)


@ioctl(uapi.HBM_SCRUB_START, uapi.HBM_SCRUB_WAIT)
def hbm_scrub(call: Call, args: structs.HbmScrubStart | structs.HbmScrubWait) -> None:
    raise OSError(errno.EPERM, "this generation has no engines that scrub memory")


@ioctl(uapi.DEVICE_RESET_STATUS, reads=False, fills=True)
def device_reset_status(call: Call, args: structs.Byte) -> None:
    args.value = 1


@ioctl(uapi.DEVICE_INIT, uapi.DEVICE_RELEASE, uapi.NOTIFICATIONS_DESTROY_V1, reads=False)
def retired(call: Call, args: ctypes.Structure) -> None:
    """The module kept these for old programs: nothing is read, nothing is to be done."""


@ioctl(uapi.DMA_ENG_INIT, attached=True, reads=False)
def dma_eng_init(call: Call, args: structs.DmaEngInit) -> None:
    """Engines are initialised by resets; the module kept this for old programs."""


@ioctl(uapi.DMA_QUEUE_RELEASE, attached=True)
def dma_queue_release(call: Call, args: structs.DmaQueueRelease) -> None:
    """Queues are released with their process; the module kept this for old programs."""


@ioctl(uapi.DMA_QUIESCE_QUEUES, reads=False)
def dma_quiesce_queues(call: Call, args: ctypes.Structure) -> None:
    raise OSError(errno.ENOTTY, "queues cannot be quiesced")


@ioctl(uapi.NOTIFICATIONS_QUEUE_INFO, reads=False)
def notifications_queue_info(call: Call, args: structs.NotificationsQueueInfo) -> None:
    raise OSError(errno.EPERM, "the driver does not read notification queues")
