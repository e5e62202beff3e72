# SPDX-License-Identifier: Apache-2.0
"""The same inference with the driver's raw ioctls: python examples/raw_ioctls.py [MODEL.tflite [DEVICE]]

DEVICE is a virtual machine's name or a node such as /dev/accel/accel0: the calls are the same.
"""

import ctypes
import mmap
import sys
from pathlib import Path
from typing import TypeVar

import numpy as np

from npubox.client.node import NodeFile, open_node
from npubox.client.regions import used_regions
from npubox.compiler.placement import check_made_for
from npubox.compiler.vela import compile_network
from npubox.errors import ModelError, NpuboxError
from npubox.formats.payload import config_name
from npubox.formats.tflite import read_network
from npubox.uapi import drm
from npubox.uapi import ethosu_accel as ethosu
from npubox.uapi.ioctl import Ioctl

DIGITS = Path(__file__).parent / "digits"
CONSTANTS, ARENA, SRAM = 0, 1, 2  # the regions that Vela's command streams address
FOREVER = (1 << 63) - 1
Struct = TypeVar("Struct", bound=ctypes.Structure)


def call(node: NodeFile, ioctl: Ioctl[Struct], **fields: int) -> Struct:
    """One ioctl with a struct of these fields; gives the struct as the driver left it."""
    argument = ioctl.struct(**fields)
    node.ioctl(ioctl.number, ctypes.addressof(argument))
    return argument


def create(node: NodeFile, size: int) -> tuple[int, mmap.mmap]:
    """A buffer object, mapped."""
    handle = call(node, ethosu.BO_CREATE, size=size).handle
    offset = call(node, ethosu.BO_MMAP_OFFSET, handle=handle).offset
    return handle, node.mmap(size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, offset)


def main(model: str, device: str) -> None:
    network = read_network(Path(model))
    opened = open_node(device)
    node = opened.node

    info = ethosu.NpuInfo()
    call(
        node,
        ethosu.DEV_QUERY,
        type=ethosu.Query.NPU_INFO,
        size=ctypes.sizeof(info),
        pointer=ctypes.addressof(info),
    )
    accelerator = config_name(info.config, info.id)
    print(f"{accelerator}: id {info.id:#x} config {info.config:#x} SRAM {info.sram_size >> 10} KiB")

    if not network.compiled:
        network = read_network(compile_network(Path(model), accelerator).content)
    npu = network.operators[0].npu
    if npu is None or len(network.operators) > 1:
        raise ModelError(f"{model} is not wholly one NPU operator: examples/highlevel.py runs it")
    check_made_for(npu.stream, info.config, info.id, model)
    used = used_regions(npu.stream.words)

    stream = ctypes.create_string_buffer(npu.stream.words, len(npu.stream.words))
    command = call(node, ethosu.CMDSTREAM_BO_CREATE, size=len(stream), data=ctypes.addressof(stream)).handle
    handles = {}
    data = network.tensors[npu.read_only].data
    if CONSTANTS in used and data is not None:
        handles[CONSTANTS], constants = create(node, data.nbytes)
        constants[:] = data.tobytes()
    handles[ARENA], arena = create(node, network.arena_size)

    for index in network.inputs:
        tensor = network.tensors[index]
        values = np.zeros(tensor.shape, tensor.dtype)
        if tensor.shape == (1, 8, 8, 1):
            values = np.load(DIGITS / "test.npz")["inputs"][:1]  # a handwritten digit
        arena.seek(tensor.arena_offset or 0)
        arena.write(values.tobytes())

    job = ethosu.Job(cmd_bo=command)
    job.sram_size = network.tensors[npu.scratch_fast].nbytes if SRAM in used else 0
    for region, handle in handles.items():
        job.region_bo_handles[region] = handle
    call(node, ethosu.SUBMIT, jobs=ctypes.addressof(job), job_count=1)
    call(node, ethosu.BO_WAIT, handle=handles[ARENA], timeout_ns=FOREVER)  # 0 even for a job that failed

    for index in network.outputs:
        tensor = network.tensors[index]
        start = tensor.arena_offset or 0
        stored = arena[start : start + tensor.nbytes]
        print("output", np.frombuffer(stored, tensor.dtype).reshape(tensor.shape))
    for handle in (command, *handles.values()):
        call(node, drm.GEM_CLOSE, handle=handle)
    opened.close()


if __name__ == "__main__":
    try:
        main(
            sys.argv[1] if len(sys.argv) > 1 else str(DIGITS / "digits.tflite"),
            sys.argv[2] if len(sys.argv) > 2 else "ethos-u65-256",
        )
    except (NpuboxError, OSError) as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        sys.exit(2)
