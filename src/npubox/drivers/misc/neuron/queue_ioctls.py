# SPDX-License-Identifier: Apache-2.0
"""ioctls on notification queues and datastores (facts, neuron.md §3.2, §7, §11.2)."""

from __future__ import annotations

import errno

from npubox.drivers.misc.neuron.call import Call, ioctl
from npubox.drivers.misc.neuron.memory import Chunk
from npubox.drivers.misc.neuron.notifications import NqRequest
from npubox.uapi import neuron as uapi
from npubox.uapi import neuron_structs as structs
from npubox.uapi.neuron import DATASTORE_SIZE, NO_OFFSET, NqDevice

V2Args = structs.NotificationsInitV2 | structs.NotificationsInitWithReallocV2


@ioctl(uapi.NOTIFICATIONS_INIT_V1, attached=True)
def notifications_init_v1(call: Call, args: structs.NotificationsInitV1) -> None:
    """A queue in host memory."""
    request = NqRequest(args.nc_id, args.nq_type, args.engine_index, args.size, host=True)
    args.mmap_offset = _initialise(call, request).pa


@ioctl(uapi.NOTIFICATIONS_INIT_V2, uapi.NOTIFICATIONS_INIT_WITH_REALLOC_V2, attached=True)
def notifications_init_v2(call: Call, args: V2Args) -> None:
    if args.nq_dev_type != NqDevice.CORE:
        raise OSError(errno.ENOSYS, f"this generation has no notifications of device type {args.nq_dev_type}")
    host = bool(args.on_host_memory)
    chunk = _initialise(
        call,
        NqRequest(
            args.nq_dev_id,
            args.nq_type,
            args.engine_index,
            args.size,
            host,
            0 if host else args.dram_channel,
            0 if host else args.dram_region,
            bool(getattr(args, "force_alloc_mem", 0)),
        ),
    )
    args.mmap_offset = chunk.pa if chunk.host else NO_OFFSET
    args.mem_handle = call.device.memory.handle_of(chunk)


def _initialise(call: Call, request: NqRequest) -> Chunk:
    call.check_core(request.core)
    return call.device.notifications.initialise(request, call.pid)


@ioctl(uapi.ACQUIRE_NEURON_DS)
def acquire_neuron_ds(call: Call, args: structs.NeuronDsInfo) -> None:
    own = args.pid in (0, call.pid)
    if not own and call.driver.isolate:
        raise OSError(errno.EACCES, f"the datastore of process {args.pid} is its own")
    owner = call.pid if own else args.pid
    store = call.device.datastores.acquire(owner, create=args.pid == 0)
    args.mmap_offset, args.size = store.pa, DATASTORE_SIZE


@ioctl(uapi.RELEASE_NEURON_DS)
def release_neuron_ds(call: Call, args: structs.NeuronDsInfo) -> None:
    """Only its owner really releases a datastore; for others nothing changes."""
    if args.pid in (0, call.pid):
        call.device.datastores.release(call.pid)
