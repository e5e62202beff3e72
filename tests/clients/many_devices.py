# SPDX-License-Identifier: Apache-2.0
"""A program on many accel nodes: python many_devices.py COUNT prints what it saw.

The first and the last one share a buffer and a sync object.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import sys
import threading

from npubox.uapi import drm, drm_syncobj, refaccel
from npubox.uapi.ioctl import Ioctl, StructT

EVER = (1 << 63) - 1


def call(file: int, ioctl: Ioctl[StructT], /, **fields: int) -> StructT:
    args = ioctl.struct(**fields)
    fcntl.ioctl(file, ioctl.number, args)
    return args


def main(count: int) -> None:
    nodes = [os.open(f"/dev/accel/accel{minor}", os.O_RDWR) for minor in range(count)]
    minors = [os.minor(os.fstat(node).st_rdev) for node in nodes]
    print("minors:", minors == list(range(count)), sorted(os.listdir("/dev/accel")) == names(count))
    first, last = nodes[0], nodes[-1]

    bo = call(first, refaccel.CREATE_BO, size=mmap.PAGESIZE)
    buffer = call(first, drm.PRIME_HANDLE_TO_FD, handle=bo.handle, flags=os.O_CLOEXEC | os.O_RDWR, fd=-1).fd
    imported = call(last, drm.PRIME_FD_TO_HANDLE, fd=buffer).handle
    again = call(last, drm.PRIME_HANDLE_TO_FD, handle=imported, flags=os.O_CLOEXEC | os.O_RDWR, fd=-1).fd
    with mmap.mmap(first, mmap.PAGESIZE, offset=bo.offset) as here, mmap.mmap(again, mmap.PAGESIZE) as there:
        here[:5] = b"first"
        there[5:9] = b"last"
        print("buffer:", bytes(here[:9]), bytes(there[:9]))

    mine = call(first, drm_syncobj.SYNCOBJ_CREATE).handle
    shared = call(first, drm_syncobj.SYNCOBJ_HANDLE_TO_FD, handle=mine, fd=-1).fd
    theirs = call(last, drm_syncobj.SYNCOBJ_FD_TO_HANDLE, fd=shared).handle
    mine_array, theirs_array = (ctypes.c_uint32 * 1)(mine), (ctypes.c_uint32 * 1)(theirs)
    signal = drm_syncobj.SyncobjArray(handles=ctypes.addressof(mine_array), count_handles=1)
    timer = threading.Timer(0.1, fcntl.ioctl, (first, drm_syncobj.SYNCOBJ_SIGNAL.number, signal))
    timer.start()
    for_submit = drm_syncobj.WaitFlag.FOR_SUBMIT
    handles = ctypes.addressof(theirs_array)
    call(
        last, drm_syncobj.SYNCOBJ_WAIT, handles=handles, count_handles=1, timeout_nsec=EVER, flags=for_submit
    )
    timer.join()
    print("sync object: signalled")


def names(count: int) -> list[str]:
    return sorted(f"accel{minor}" for minor in range(count))


if __name__ == "__main__":
    main(int(sys.argv[1]))
