# SPDX-License-Identifier: Apache-2.0
"""The virtual NPU behind its driver: faults, hangs, device time, the PMU, the control channel."""

from __future__ import annotations

import errno
import struct
import time

import numpy as np
import pytest

from npubox.bus.virtual import AddressSpace, InterruptLine, VirtualClock
from npubox.devices.ethosu_npu.configuration import CONFIGURATIONS
from npubox.devices.ethosu_npu.faults import Fault, RunReport
from npubox.devices.ethosu_npu.npu import VirtualNpu
from npubox.devices.ethosu_npu.run import Injection
from npubox.hw.ethosu.commands import CMD1_CONTROL, Cmd0, Cmd1
from npubox.hw.ethosu.registers import PMU_CYCLE_BIT, Cmd, Pmcr, Reg, Status
from npubox.machines.machine import Machine
from tests.devices.bench import Bench
from tests.networks import MODELS, compiled_by_vela, fully_connected, shared_network


def cmd0(code: Cmd0, parameter: int = 0) -> bytes:
    return struct.pack("<I", parameter << 16 | code)


def cmd1(code: Cmd1, payload: int, parameter: int = 0) -> bytes:
    return struct.pack("<II", parameter << 16 | CMD1_CONTROL | code, payload)


def copy_stream(source: int, target: int, length: int) -> bytes:
    """A DMA of `length` bytes from region 0 to region 1, and OP_STOP."""
    return b"".join(
        [
            cmd0(Cmd0.DMA0_SRC_REGION, 0),
            cmd0(Cmd0.DMA0_DST_REGION, 1),
            cmd1(Cmd1.DMA0_SRC, source),
            cmd1(Cmd1.DMA0_DST, target),
            cmd1(Cmd1.DMA0_LEN, length),
            cmd0(Cmd0.OP_DMA_START),
            cmd0(Cmd0.OP_STOP, 0xFFFF),
        ]
    )


@pytest.fixture
def bench(machine: Machine) -> Bench:
    return Bench(machine, compiled_by_vela(fully_connected(), "ethos-u65-256"))


def test_dma_moves_the_bytes(bench: Bench) -> None:
    bench.constants[1][:16] = np.arange(16)
    bench.arena[1][:] = 0
    assert bench.run(copy_stream(0, 0, 16)).fault is None
    np.testing.assert_array_equal(bench.arena[1][:16], np.arange(16))


def test_unmodelled_command_is_refused_by_name(bench: Bench) -> None:
    stream = copy_stream(0, 0, 16).replace(
        cmd0(Cmd0.DMA0_DST_REGION, 1), cmd0(Cmd0.DMA0_DST_REGION, 1 | 1 << 9)
    )
    report = bench.run(stream)
    assert report.fault is not None
    assert report.fault.command == "OP_DMA_START"
    assert report.fault.offset == 32
    assert "stride mode 1" in report.fault.reason
    assert report.fault.status & Status.PARSE_ERROR
    assert report.error == errno.ECANCELED


def test_unknown_command_is_a_parse_error(bench: Bench) -> None:
    report = bench.run(cmd0(Cmd0.OP_PMU_MASK) + struct.pack("<I", 77) + copy_stream(0, 0, 16))
    assert report.fault is not None
    assert (report.fault.command, report.fault.offset) == ("cmd0 77", 4)
    assert report.fault.status & Status.PARSE_ERROR


def test_a_job_after_a_fault_runs(bench: Bench) -> None:
    assert bench.run(cmd0(Cmd0.OP_PMU_MASK) + struct.pack("<I", 77) + copy_stream(0, 0, 16)).fault
    assert bench.run(copy_stream(0, 0, 16)).fault is None


def test_bus_fault_names_the_address(machine: Machine, bench: Bench) -> None:
    machine.inject(Injection.BUS_ERROR)
    report = bench.run()
    assert report.fault is not None
    assert report.fault.address is not None
    assert report.fault.status & Status.BUS_ERROR


def test_a_hang_ends_after_the_drivers_time_out_in_device_time(machine: Machine, bench: Bench) -> None:
    machine.inject(Injection.HANG)
    before = machine.clock.now()
    started = time.monotonic()
    report = bench.run()
    assert time.monotonic() - started < 60, "a hang costs device time, not the host's"
    assert machine.clock.now() - before >= 500_000_000
    assert report.error == errno.ECANCELED
    assert report.fault is not None
    assert "reset while it ran" in report.fault.reason
    assert bench.run().fault is None


def test_device_time_is_the_cost_model_not_the_host(machine: Machine) -> None:
    network = compiled_by_vela(shared_network("kws_dscnn_int8").read_bytes(), "ethos-u65-256")
    bench = Bench(machine, network)
    bench.set_inputs(np.load(MODELS / "kws_dscnn_int8.npz")["input0_0"])
    reports = [bench.run() for _ in range(3)]
    assert len({report.cycles for report in reports}) == 1
    assert all(report.end_ns - report.start_ns == report.cycles for report in reports), "1 GHz"


class Listener:
    def __init__(self) -> None:
        self.reports: list[RunReport] = []
        self.ignored: list[Fault] = []

    def run_started(self) -> None: ...

    def run_ignored(self, fault: Fault) -> None:
        self.ignored.append(fault)

    def run_finished(self, report: RunReport) -> None:
        self.reports.append(report)


def bare_npu(listener: Listener) -> tuple[VirtualNpu, VirtualClock]:
    clock = VirtualClock()
    npu = VirtualNpu(CONFIGURATIONS["ethos-u65-256"], AddressSpace(), clock, InterruptLine(), 10**9, listener)
    return npu, clock


def test_identification_registers() -> None:
    npu, clock = bare_npu(Listener())
    assert npu.read32(Reg.ID) == 0x10066001
    assert npu.read32(Reg.CONFIG) == 0x10003008
    npu.write32(Reg.CONFIG, 0)
    assert npu.read32(Reg.CONFIG) == 0x10003008, "read-only"
    npu.close()
    clock.close()


def test_run_without_a_stream_is_a_bus_error() -> None:
    listener = Listener()
    npu, clock = bare_npu(listener)
    npu.write32(Reg.QBASE, 0x1000)
    npu.write32(Reg.QSIZE, 64)
    npu.write32(Reg.CMD, Cmd.RUN)
    while not npu.read32(Reg.STATUS) & Status.IRQ_RAISED:
        time.sleep(0.001)
    status = Status(npu.read32(Reg.STATUS) & 0xFFFF)
    assert status & Status.BUS_ERROR
    assert not status & Status.RUNNING
    npu.write32(Reg.CMD, Cmd.CLEAR_IRQ)
    assert not npu.read32(Reg.STATUS) & Status.IRQ_RAISED
    (report,) = listener.reports
    assert report.fault is not None
    assert report.fault.address == 0x1000
    npu.close()
    clock.close()


def test_pmu_counts_cycles_while_enabled(machine: Machine, bench: Bench) -> None:
    npu = machine.npu
    npu.write32(Reg.PMCR, Pmcr.CNT_EN | Pmcr.CYCLE_CNT_RST)
    npu.write32(Reg.PMCNTENSET, PMU_CYCLE_BIT)
    report = bench.run()
    assert npu.read32(Reg.PMCCNTR) == report.cycles > 0
    npu.write32(Reg.PMCNTENCLR, PMU_CYCLE_BIT)
    bench.run()
    assert npu.read32(Reg.PMCCNTR) == report.cycles


def test_early_interrupt_ends_the_job_but_not_its_report(bench: Bench) -> None:
    """OP_IRQ makes the kernel signal the job early; only the control channel knows when it is over."""
    job = bench.submit(cmd0(Cmd0.OP_IRQ, 1) + copy_stream(0, 0, 16))
    report = bench.wait(job)
    assert report.fault is None
    assert report.cycles > 1
