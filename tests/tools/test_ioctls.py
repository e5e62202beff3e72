# SPDX-License-Identifier: Apache-2.0
"""Every ioctl of /dev/neuron<N> is shown by name, with its fields and what its pointers lead to."""

from __future__ import annotations

import ctypes
import json
from typing import Any

import pytest

from npubox.core.usermem import OwnMemory
from npubox.tools.ioctls import decode, name_of
from npubox.tools.neuron_fields import Descriptor
from npubox.uapi import neuron
from npubox.uapi import neuron_structs as structs
from npubox.uapi.ioctl import Ioctl


@pytest.mark.parametrize("ioctl", neuron.IOCTLS, ids=lambda ioctl: ioctl.name)
def test_every_field_is_shown(ioctl: Ioctl[Any]) -> None:
    args = ioctl.struct()
    shown = decode(ioctl.number, ctypes.addressof(args), OwnMemory().read, ending=True)
    assert name_of(ioctl.number) == ioctl.name
    assert list(shown) == [field[0] for field in ioctl.struct._fields_]
    json.dumps(shown)


def test_names_and_pointers() -> None:
    found = (Descriptor * 2)(Descriptor(1, 2, 0x30), Descriptor(4, 5, 0x60))
    args = structs.DmaCopyDescriptors(buffer=ctypes.addressof(found), num_descs=2, queue_type=1)
    shown = decode(neuron.DMA_COPY_DESCRIPTORS.number, ctypes.addressof(args), OwnMemory().read, ending=False)
    assert shown["queue_type"] == "RX"
    assert shown["buffer"] == [
        {"control": "0x1", "meta": "0x2", "address": "0x30"},
        {"control": "0x4", "meta": "0x5", "address": "0x60"},
    ]


def test_what_the_driver_fills_is_shown_as_the_call_ends() -> None:
    handle = ctypes.c_uint64(7)
    args = structs.MemAlloc(size=4096, mem_handle=ctypes.addressof(handle))
    call = neuron.MEM_ALLOC.number, ctypes.addressof(args), OwnMemory().read
    assert decode(*call, ending=False)["mem_handle"] == hex(ctypes.addressof(handle))
    assert decode(*call, ending=True)["mem_handle"] == {"value": 7}


def test_addresses_are_shown_as_mmap_offsets_are() -> None:
    place = ctypes.c_uint64(0x4000_101A_4000)
    args = structs.MemGetPa(mem_handle=10, pa=ctypes.addressof(place))
    shown = decode(neuron.MEM_GET_PA.number, ctypes.addressof(args), OwnMemory().read, ending=True)
    assert shown == {"mem_handle": 10, "pa": {"address": "0x4000101a4000"}}
