# SPDX-License-Identifier: Apache-2.0
"""ioctl dispatch of /dev/neuron<N> (facts, neuron.md §3.1)."""

from __future__ import annotations

import ctypes
import errno
from typing import Any

from npubox.core.caller import Caller
from npubox.core.pending import Pending
from npubox.drivers.misc.neuron import (
    copy_ioctls,
    core_ioctls,
    dma_ioctls,
    info_ioctls,
    memory_ioctls,
    queue_ioctls,
    register_ioctls,
    sharing,
)
from npubox.drivers.misc.neuron.call import Call, CopyFault, Row, rows
from npubox.drivers.misc.neuron.device import NeuronDevice
from npubox.drivers.misc.neuron.work import Work
from npubox.uapi import neuron as uapi
from npubox.uapi.ioctl import NUMBER_MASK, Dir, ioc_dir, ioc_nr, ioc_size, ioc_type

MODULES = (
    info_ioctls,
    memory_ioctls,
    copy_ioctls,
    dma_ioctls,
    queue_ioctls,
    register_ioctls,
    core_ioctls,
    sharing,
)
_ROWS = {row.declaration.number: row for row in rows()}
_BY_NR_ONLY = frozenset({23, 24, 28, 38, 102, 105, 108, 110, 111, 115, 121, 122, 123, 124})
_UNREADABLE_IS_EACCES = frozenset(
    ioctl.number for ioctl in (uapi.MEM_ALLOC, uapi.DMA_QUEUE_INIT, uapi.DMA_QUEUE_INIT_BATCH)
)


def dispatch(
    device: NeuronDevice, misc_only: bool, request: int, address: int, caller: Caller
) -> int | Pending:
    """Carry out one ioctl: the result, or a Pending that copies out when it is over. Raises OSError."""
    number = request & NUMBER_MASK
    row = find_row(number)
    if row is None or (misc_only and not row.misc):
        raise OSError(errno.EINVAL, f"/dev/{device.name} has no ioctl {number:#010x} for this file")
    call = Call(device, caller, address)
    try:
        with device.lock:
            if device.driver.unplugged:
                raise OSError(errno.ENODEV, f"{device.name} is gone")
            # The check is keyed on the exact number, so variants that only the nr names escape it.
            if row.attached and row.declaration.number == number and call.pid not in device.processes:
                raise OSError(errno.EACCES, f"process {call.pid} is not attached to {device.name}")
            args = _copy_in(call, row)
            return _carry_out(call, row, args)
    except CopyFault as fault:
        return _faulted(call, fault)


def find_row(number: int) -> Row | None:
    """The ioctl of a number; some are known by their nr and size alone, whatever the direction."""
    row = _ROWS.get(number)
    nr = ioc_nr(number)
    if row is not None or ioc_type(number) != uapi.NEURON or nr not in _BY_NR_ONLY:
        return row
    if nr == ioc_nr(uapi.MEM_BUF_ZEROCOPY64.number):
        return _ROWS[uapi.MEM_BUF_ZEROCOPY64.number]
    if nr == ioc_nr(uapi.DRIVER_INFO_GET.number):
        least = ioc_size(uapi.DRIVER_INFO_GET.number)
        fits = ioc_dir(number) == Dir.READ and ioc_size(number) >= least
        return _ROWS[uapi.DRIVER_INFO_GET.number] if fits else None
    same = (known for known in _ROWS if ioc_nr(known) == nr and ioc_size(known) == ioc_size(number))
    return next((_ROWS[known] for known in same), None)


def _copy_in(call: Call, row: Row) -> ctypes.Structure:
    struct: type[ctypes.Structure] = row.declaration.struct
    if row.reads:
        try:
            return call.read_struct(struct, call.address)
        except CopyFault:
            if call.strict or row.declaration.number not in _UNREADABLE_IS_EACCES:
                raise
            raise OSError(errno.EACCES, "the argument cannot be read") from None
    return struct()


def _carry_out(call: Call, row: Row, args: ctypes.Structure) -> int | Pending:
    before = bytes(args)

    def copy_out() -> None:
        after = bytes(args)
        if after != before or row.fills:
            call.write(call.address, after)

    try:
        outcome = row.handler(call, args)
    except CopyFault:
        raise
    except OSError:
        copy_out()
        raise
    if isinstance(outcome, Work):
        if outcome.done:
            result = _finished(outcome)
            copy_out()
            return result
        return _pending(call, outcome, copy_out)
    if isinstance(outcome, Pending):
        outcome.on_finish(lambda _: copy_out())
        return outcome
    copy_out()
    return outcome or 0


def _pending(call: Call, work: Work, copy_out: Any) -> Pending:
    pending = Pending([work])

    def finish(error: OSError | None) -> None:
        if error is None:
            try:
                pending.result = _finished(work)
                copy_out()
            except CopyFault as fault:
                pending.result = _faulted(call, fault)

    pending.on_finish(finish)
    return pending


def _finished(work: Work) -> int:
    if work.error is not None:
        raise work.error
    return (work.then(work.value) if work.then is not None else None) or 0


def _faulted(call: Call, fault: CopyFault) -> int:
    """The module returns how many bytes it did not copy; strictly it is EFAULT."""
    if call.strict:
        raise fault
    return fault.left
