# SPDX-License-Identifier: Apache-2.0
"""ioctls on NeuronCores: locks, marks, initialisation, reset (facts, neuron.md §3.2, §10)."""

from __future__ import annotations

import ctypes
import errno

from npubox.core.pending import Pending
from npubox.drivers.misc.neuron.call import Call, ioctl
from npubox.drivers.misc.neuron.core_states import Core
from npubox.drivers.misc.neuron.crwl import CoreLock
from npubox.hw.neuron.address import CORES
from npubox.uapi import neuron as uapi
from npubox.uapi import neuron_structs as structs
from npubox.uapi.neuron import CoreState

KNOWN_REQUEST = 1  # NC_RESET: one of that id is still known
FAILED = 1
MapArgs = structs.CrwlNcMap | structs.CrwlNcMapExt


def _lock(call: Call, args: structs.Crwl) -> tuple[CoreLock, bytes]:
    if args.nc_id >= len(call.device.locks):
        raise OSError(errno.EINVAL, f"no device has a core {args.nc_id}")
    call.check_core(args.nc_id)
    return call.device.locks[args.nc_id], bytes(args.uuid)


@ioctl(uapi.CRWL_READER_ENTER)
def crwl_reader_enter(call: Call, args: structs.Crwl) -> Pending | None:
    lock, uuid = _lock(call, args)
    return lock.enter_reader(call.pid, uuid)


@ioctl(uapi.CRWL_READER_EXIT)
def crwl_reader_exit(call: Call, args: structs.Crwl) -> None:
    lock, uuid = _lock(call, args)
    lock.exit_reader(call.pid, uuid)


@ioctl(uapi.CRWL_WRITER_ENTER)
def crwl_writer_enter(call: Call, args: structs.Crwl) -> Pending | None:
    lock, uuid = _lock(call, args)
    return lock.enter_writer(call.pid, uuid)


@ioctl(uapi.CRWL_WRITER_DOWNGRADE)
def crwl_writer_downgrade(call: Call, args: structs.Crwl) -> None:
    lock, uuid = _lock(call, args)
    lock.downgrade(call.pid, uuid)


@ioctl(uapi.CRWL_NC_RANGE_MARK, uapi.CRWL_NC_RANGE_MARK_EXT0, misc=True)
def crwl_nc_range_mark(call: Call, args: MapArgs) -> None:
    """Indices count from this device's first core. EBUSY where no such range is free: the most there is comes
    back all the same."""
    base = call.device.index * CORES
    found, most = call.driver.marks.mark(
        call.pid, args.nc_count, base + args.start_nc_index, base + args.end_nc_index
    )
    if not found and args.nc_count:
        args.max_nc_available = most
        raise OSError(errno.EBUSY, f"{most} cores in a row are free, not {args.nc_count}")
    _set_bits(args, [slot - base for slot in found])
    call.driver.isolation.cores_changed(call.pid, found, 1)


@ioctl(uapi.CRWL_NC_RANGE_UNMARK, uapi.CRWL_NC_RANGE_UNMARK_EXT0, misc=True)
def crwl_nc_range_unmark(call: Call, args: MapArgs) -> None:
    base = call.device.index * CORES
    given_up = call.driver.marks.unmark(call.pid, [base + bit for bit in _bits(args)])
    call.driver.isolation.cores_changed(call.pid, given_up, -1)


def _bits(args: MapArgs) -> list[int]:
    words = [args.bitmap] if isinstance(args, structs.CrwlNcMap) else list(args.bitmap)
    return [64 * word + bit for word, value in enumerate(words) for bit in range(64) if value >> bit & 1]


def _set_bits(args: MapArgs, bits: list[int]) -> None:
    whole = sum(1 << bit for bit in bits)
    if isinstance(args, structs.CrwlNcMap):
        args.bitmap = whole & (1 << 64) - 1
    else:
        for word in range(len(args.bitmap)):
            args.bitmap[word] = whole >> 64 * word & (1 << 64) - 1


def _core(call: Call, index: int) -> Core:
    if index >= CORES:
        raise OSError(errno.E2BIG, f"the device has no core {index}")
    return call.device.cores[index]


@ioctl(uapi.CINIT_SET_STATE)
def cinit_set_state(call: Call, args: structs.CinitSet) -> Pending | None:
    """Transitions that are none change nothing; the state after the call tells."""
    core = _core(call, args.nc_id)
    call.check_core(args.nc_id)
    pending = None
    if args.state == CoreState.STARTED:
        pending = core.begin()
    elif args.state == CoreState.COMPLETED:
        core.complete()
    args.new_state = core.state
    if pending is not None:
        pending.on_finish(lambda _: setattr(args, "new_state", core.state))
    return pending


@ioctl(uapi.NC_MODEL_STARTED_COUNT)
def nc_model_started_count(call: Call, args: structs.NcModelStartedCount) -> None:
    args.started_count = _core(call, args.nc_id).models_started


@ioctl(uapi.NC_RESET)
def nc_reset(call: Call, args: structs.DeviceReset) -> int:
    """Queue a reset; NC_RESET_READY fetches what came of it."""
    for core in range(CORES):
        if args.nc_map >> core & 1:
            call.check_core(core)
    args.request_id = call.pid
    if call.pid in call.device.resets:
        return KNOWN_REQUEST
    call.device.begin_reset(call.pid, args.nc_map)
    return 0


@ioctl(uapi.NC_RESET_READY)
def nc_reset_ready(call: Call, args: structs.DeviceReady) -> Pending | None:
    """`result`: 0 done, 1 failed or unknown. Asking forgets the request."""
    return _fetch(call, args.request_id, args, "result", 0, FAILED)


@ioctl(uapi.DEVICE_RESET, reads=False)
def device_reset(call: Call, args: ctypes.Structure) -> None:
    """The old form of NC_RESET for the whole device."""
    for core in range(CORES):
        call.check_core(core)
    if call.pid not in call.device.resets:
        call.device.begin_reset(call.pid, uapi.WHOLE_DEVICE)


@ioctl(uapi.DEVICE_READY, reads=False, fills=True)
def device_ready(call: Call, args: structs.Byte) -> Pending | None:
    """1 if this process's reset succeeded or it asked for none, else 0."""
    if call.pid not in call.device.resets:
        args.value = 1
        return None
    return _fetch(call, call.pid, args, "value", 1, 0)


def _fetch(
    call: Call, request: int, args: ctypes.Structure, field: str, good: int, bad: int
) -> Pending | None:
    work = call.device.resets.get(request)

    def settle(_: OSError | None = None) -> None:
        setattr(args, field, bad if work is None or work.error is not None else good)
        call.device.resets.pop(request, None)

    if work is None or work.done:
        settle()
        return None
    pending = Pending([work])
    pending.on_finish(settle)
    return pending
