# SPDX-License-Identifier: Apache-2.0
"""Locks, marks, initialisation, reset and who is attached (facts, neuron.md §10, §11)."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import threading

import pytest

from npubox.core.pending import Pending
from npubox.drivers.misc.neuron import crwl
from npubox.drivers.misc.neuron.core_states import Core
from npubox.drivers.misc.neuron.device import DeviceState
from npubox.hw.neuron.misc_ram import BASE as MISC
from npubox.hw.neuron.misc_ram import MiscReg
from npubox.hw.neuron.pci import Bar, Revision
from npubox.uapi import neuron as uapi
from npubox.uapi import neuron_structs as structs
from npubox.uapi.neuron import CoreState
from tests.core.refaccel import fails
from tests.drivers.neuron.program import Machine, Program

UUID, OTHER = b"\1" * 32, b"\2" * 32


def lock(core: int = 0, uuid: bytes = UUID) -> structs.Crwl:
    args = structs.Crwl(nc_id=core)
    ctypes.memmove(args.uuid.value, uuid, 32)
    return args


def test_a_writer_becomes_a_reader(program: Program) -> None:
    program.fails(errno.ENOENT, uapi.CRWL_READER_ENTER, lock())
    assert program.call(uapi.CRWL_WRITER_ENTER, lock()) == 0
    program.fails(errno.ENOENT, uapi.CRWL_WRITER_DOWNGRADE, lock(uuid=OTHER))
    assert program.call(uapi.CRWL_WRITER_DOWNGRADE, lock()) == 0
    program.fails(errno.EINVAL, uapi.CRWL_WRITER_DOWNGRADE, lock())
    assert program.call(uapi.CRWL_READER_ENTER, lock()) == 0
    for _ in range(2):
        assert program.call(uapi.CRWL_READER_EXIT, lock()) == 0
    program.fails(errno.EINVAL, uapi.CRWL_READER_EXIT, lock())
    program.fails(errno.EALREADY, uapi.CRWL_WRITER_ENTER, lock())
    assert program.call(uapi.CRWL_WRITER_DOWNGRADE, lock()) == 0, "the lock was taken all the same"
    program.fails(errno.EINVAL, uapi.CRWL_READER_ENTER, lock(core=8))


def test_waiting_for_a_lock(machine: Machine, program: Program) -> None:
    assert program.call(uapi.CRWL_WRITER_ENTER, lock()) == 0
    waiting = program.begin(uapi.CRWL_READER_ENTER, lock())
    other = machine.program()
    blocked = other.begin(uapi.CRWL_WRITER_ENTER, lock(uuid=OTHER))
    assert isinstance(waiting, Pending)
    assert isinstance(blocked, Pending)
    assert program.call(uapi.CRWL_WRITER_DOWNGRADE, lock()) == 0
    assert waiting.wait() == 0
    assert not blocked.done
    for _ in range(2):
        assert program.call(uapi.CRWL_READER_EXIT, lock()) == 0
    assert blocked.wait() == 0
    other.close()


def test_a_starved_reader(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crwl, "READER_PATIENCE", 1_000_000)
    assert program.call(uapi.CRWL_WRITER_ENTER, lock()) == 0
    program.fails(errno.EBUSY, uapi.CRWL_READER_ENTER, lock())


def test_the_lock_of_a_process_that_goes(machine: Machine, program: Program) -> None:
    other = machine.program()
    assert other.call(uapi.CRWL_WRITER_ENTER, lock()) == 0
    blocked = program.begin(uapi.CRWL_WRITER_ENTER, lock())
    assert isinstance(blocked, Pending)
    other.close()
    assert blocked.wait() == 0


def test_marks_of_cores(machine: Machine) -> None:
    one, other = (machine.program(flags=os.O_WRONLY) for _ in range(2))
    two = structs.CrwlNcMap(nc_count=2, end_nc_index=3)
    assert one.call(uapi.CRWL_NC_RANGE_MARK, two) == 0
    assert two.bitmap == 3
    three = structs.CrwlNcMap(nc_count=3, end_nc_index=3)
    other.fails(errno.EBUSY, uapi.CRWL_NC_RANGE_MARK, three)
    assert three.max_nc_available == 2
    wide = structs.CrwlNcMapExt(nc_count=2, end_nc_index=3)
    assert other.call(uapi.CRWL_NC_RANGE_MARK_EXT0, wide) == 0
    assert list(wide.bitmap) == [0b1100, *[0] * 7]
    assert other.call(uapi.CRWL_NC_RANGE_UNMARK, two) == 0, "no error, but they are another's"
    other.fails(errno.EBUSY, uapi.CRWL_NC_RANGE_MARK, structs.CrwlNcMap(nc_count=1, end_nc_index=1))
    one.close()
    assert other.call(uapi.CRWL_NC_RANGE_MARK, structs.CrwlNcMap(nc_count=2, end_nc_index=1)) == 0
    for start, end in ((3, 2), (0, 512)):
        args = structs.CrwlNcMap(nc_count=1, start_nc_index=start, end_nc_index=end)
        other.fails(errno.EINVAL, uapi.CRWL_NC_RANGE_MARK, args)
    other.close()


def test_behind_a_core_that_blocks_the_next_but_one_is_looked_at(machine: Machine) -> None:
    one, other = machine.program(flags=os.O_WRONLY), machine.program(flags=os.O_WRONLY)
    first = structs.CrwlNcMap(nc_count=1, end_nc_index=3)
    assert one.call(uapi.CRWL_NC_RANGE_MARK, first) == 0
    assert other.call(uapi.CRWL_NC_RANGE_MARK, structs.CrwlNcMap(nc_count=1, end_nc_index=3)) == 0
    assert one.call(uapi.CRWL_NC_RANGE_UNMARK, first) == 0
    args = structs.CrwlNcMap(nc_count=3, end_nc_index=3)
    other.fails(errno.EBUSY, uapi.CRWL_NC_RANGE_MARK, args)
    assert args.max_nc_available == 1, "cores 2 and 3 are free, but 2 is passed over"
    one.close()
    other.close()


def test_marks_over_two_devices() -> None:
    with Machine(2) as machine:
        first, second = machine.program(0), machine.program(1)
        assert second.call(uapi.CRWL_NC_RANGE_MARK, structs.CrwlNcMap(nc_count=1, end_nc_index=3)) == 0
        args = structs.CrwlNcMap(nc_count=4, end_nc_index=7)
        assert first.call(uapi.CRWL_NC_RANGE_MARK, args) == 0
        assert args.bitmap == 0b1111
        first.fails(errno.EBUSY, uapi.CRWL_NC_RANGE_MARK, args)
        assert args.max_nc_available == 3
        bdf = structs.DeviceBdfExt(nd_index=0xFFFF_FFFF)
        assert second.call(uapi.DEVICE_BDF_EXT, bdf) == 0
        assert bdf.slot == 1
        info = structs.DeviceInfo()
        assert second.call(uapi.DEVICE_INFO, info) == 0
        assert list(info.connected_devices[: info.connected_device_count]) == [0]
        for opened in (first, second):
            opened.close()


def test_initialisation_of_a_core(program: Program) -> None:
    states = []
    for state in (CoreState.COMPLETED, CoreState.STARTED, CoreState.COMPLETED, CoreState.STARTED, 77):
        args = structs.CinitSet(nc_id=1, state=state)
        assert program.call(uapi.CINIT_SET_STATE, args) == 0
        states.append(args.new_state)
    assert states == [CoreState.INVALID, CoreState.STARTED, *[CoreState.COMPLETED] * 3]
    program.fails(errno.E2BIG, uapi.CINIT_SET_STATE, structs.CinitSet(nc_id=4, state=1))


def test_waiting_for_another_ones_initialisation(program: Program) -> None:
    args, second = structs.CinitSet(state=CoreState.STARTED), structs.CinitSet(state=CoreState.STARTED)
    assert program.call(uapi.CINIT_SET_STATE, args) == 0
    waiting = program.begin(uapi.CINIT_SET_STATE, second)
    assert isinstance(waiting, Pending)
    args.state = CoreState.COMPLETED
    assert program.call(uapi.CINIT_SET_STATE, args) == 0
    assert waiting.wait() == 0
    assert second.new_state == CoreState.COMPLETED


def test_an_initialisation_that_never_ends() -> None:
    core = Core()
    core.begin()
    pending = core.begin()
    assert pending is not None
    pending.expire()
    assert pending.finish() == 0, "the state after the call tells"


def test_reset_stops_queues_and_forgets_states(program: Program) -> None:
    args = structs.NotificationsInitV1(nc_id=1, nq_type=2, size=4096)
    assert program.call(uapi.NOTIFICATIONS_INIT_V1, args) == 0
    started = structs.CinitSet(nc_id=1, state=CoreState.STARTED)
    assert program.call(uapi.CINIT_SET_STATE, started) == 0
    request = structs.DeviceReset(nc_map=0b10)
    assert program.call(uapi.NC_RESET, request) == 0
    assert program.call(uapi.NC_RESET, request) == 1, "one of that id is known"
    for result in (0, 1):
        ready = structs.DeviceReady(request_id=request.request_id, result=9)
        assert program.call(uapi.NC_RESET_READY, ready) == 0
        assert ready.result == result
    assert program.csr(0x0FFF_F000_0000 + 0x41_4000 + 0x109C) == 0, "the EVENT queue's size"
    completed = structs.CinitSet(nc_id=1, state=CoreState.COMPLETED)
    assert program.call(uapi.CINIT_SET_STATE, completed) == 0
    assert completed.new_state == CoreState.INVALID


def test_the_reset_of_a_process_that_goes(machine: Machine) -> None:
    """Its number may be given to another process, which starts with no reset of its own."""
    program = machine.program()
    assert program.call(uapi.NC_RESET, structs.DeviceReset(nc_map=0b1)) == 0
    program.close()
    again = machine.program(pid=program.pid)
    assert again.call(uapi.NC_RESET, structs.DeviceReset(nc_map=0b1)) == 0
    again.close()


def test_a_chip_that_does_not_get_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node stays, and open says EINVAL."""
    from npubox.devices.neuron.firmware import Firmware

    read = Firmware.read
    monkeypatch.setattr(Firmware, "read", lambda self, at: 0 if at == MiscReg.STATUS else read(self, at))
    with Machine() as machine:
        assert machine.driver.devices[0].state is DeviceState.INVALID
        with fails(errno.EINVAL):
            machine.program()
        assert machine.program(flags=os.O_WRONLY).call(uapi.DEVICE_BASIC_INFO, structs.DeviceBasicInfo()) == 0


@pytest.mark.parametrize("revision", [Revision.QEMU, Revision.SILICON])
def test_a_silent_firmware_costs_15_seconds_of_device_time(
    monkeypatch: pytest.MonkeyPatch, revision: Revision
) -> None:
    with Machine(revision=revision) as machine:
        program = machine.program()
        ring = machine.chips[0].write32

        def deaf(bar: int, offset: int, value: int) -> None:
            if (bar, offset) != (Bar.APB, MISC + MiscReg.DOORBELL):
                ring(bar, offset, value)

        monkeypatch.setattr(machine.chips[0], "write32", deaf)
        before = machine.clock.now()
        program.fails(errno.EPERM, uapi.SEMAPHORE_READ, structs.Semaphore())
        assert 15e9 <= machine.clock.now() - before < 15.2e9
        monkeypatch.undo()
        assert program.call(uapi.SEMAPHORE_READ, structs.Semaphore()) == 0
        program.close()


def test_sixteen_processes_and_no_more(machine: Machine) -> None:
    opened = [machine.program() for _ in range(16)]
    with fails(errno.EBUSY):
        machine.program()
    again = machine.program(pid=opened[3].pid)
    misc = machine.program(flags=os.O_WRONLY)
    again.close()
    opened.pop().close()
    opened.append(machine.program())
    for program in (*opened, misc):
        program.close()
    assert not machine.driver.devices[0].processes


def test_an_open_for_writing_only_has_few_ioctls(machine: Machine) -> None:
    program = machine.program(flags=os.O_WRONLY)
    for ioctl in (uapi.MEM_ALLOC, uapi.DEVICE_BDF, uapi.SEMAPHORE_READ, uapi.NC_RESET):
        program.fails(errno.EINVAL, ioctl, structs.MemAlloc())
    assert program.call(uapi.COMPATIBLE_VERSION, structs.CompatibleVersion()) == 0
    with fails(errno.EACCES):
        program.mmap(4096, 0, mmap.PROT_WRITE)
    program.close()


def test_datastores(machine: Machine, program: Program) -> None:
    args = structs.NeuronDsInfo()
    assert program.call(uapi.ACQUIRE_NEURON_DS, args) == 0
    assert (args.pid, args.size) == (0, 0x40000)
    other = machine.program()
    theirs = structs.NeuronDsInfo(pid=program.pid)
    assert other.call(uapi.ACQUIRE_NEURON_DS, theirs) == 0
    assert theirs.mmap_offset == args.mmap_offset
    with program.mmap(0x40000, args.mmap_offset) as mine, other.mmap(0x40000, args.mmap_offset) as seen:
        assert mine[:] == bytes(0x40000)
        seen[:4] = b"nds\0"
        assert mine[:4] == b"nds\0"
    assert other.call(uapi.RELEASE_NEURON_DS, theirs) == 0, "only its owner really releases one"
    assert other.call(uapi.ACQUIRE_NEURON_DS, theirs) == 0
    assert program.call(uapi.RELEASE_NEURON_DS, structs.NeuronDsInfo()) == 0
    other.fails(errno.ENOENT, uapi.ACQUIRE_NEURON_DS, theirs)
    other.close()


def test_calls_on_a_machine_that_went_down(machine: Machine) -> None:
    program = machine.program()
    assert program.call(uapi.CRWL_WRITER_ENTER, lock()) == 0
    machine.driver.close()
    program.fails(errno.ENODEV, uapi.CRWL_WRITER_DOWNGRADE, lock())
    with fails(errno.ENODEV):
        program.mmap(4096, 0)
    with fails(errno.ENODEV):
        machine.program()
    program.close()
    machine.driver.close()


def test_many_threads_of_many_processes(machine: Machine) -> None:
    """Copies, semaphores and allocations at once: each sees its own bytes."""
    wrong: list[str] = []

    def work(core: int) -> None:
        program = machine.program()
        try:
            for turn in range(20):
                data = os.urandom(70_000)
                handle = program.alloc(70_000, core=core, channel=core % 2)
                program.write(handle, data)
                args = structs.Semaphore(nc_id=core, semaphore_index=turn, value=turn)
                program.call(uapi.SEMAPHORE_WRITE, args)
                program.call(uapi.SEMAPHORE_READ, args)
                if program.read(handle, len(data)) != data or args.value != turn:
                    wrong.append(f"core {core}, turn {turn}")
                program.free(handle)
        finally:
            program.close()

    threads = [threading.Thread(target=work, args=(core,)) for core in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
