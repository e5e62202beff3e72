# SPDX-License-Identifier: Apache-2.0
"""Programs of /dev/neuron<N> under `npubox exec`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.serve.conftest import Compile, run

LIKE_RAY = """
import json, os, subprocess
assert os.path.isdir("/opt/aws/neuron/bin/")
done = subprocess.run(["/opt/aws/neuron/bin/neuron-ls", "--json-output"], stdout=subprocess.PIPE)
assert done.returncode == 0
print(sum(device.get("nc_count", 0) for device in json.loads(done.stdout)))
"""
HELD_AND_KILLED = """
import os, subprocess, sys, time
from npubox import neuron
from npubox.errors import DeviceError
from npubox.uapi.neuron import CRWL_WRITER_ENTER
from npubox.uapi.neuron_structs import Crwl
holder = subprocess.Popen([sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
assert holder.stdout.readline().startswith("ready"), holder.returncode
with neuron.open("/dev/neuron0") as devices:
    device = devices[0]
    assert set(device.processes()) == {holder.pid, os.getpid()}
    try:
        device.allocate(1 << 30)
    except DeviceError as error:
        print("held:", str(error).split("(")[-1].rstrip(")"))
    holder.kill()
    holder.wait()
    deadline = time.monotonic() + 20
    while device.processes() != (os.getpid(),):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    device.allocate(1 << 30)
    print("cores:", device.mark_cores(4))
    device.node.call(CRWL_WRITER_ENTER, Crwl(nc_id=0))
    print("lock: taken")
holder.stdin.close()
"""
KEPT_APART = """
import subprocess, sys
from npubox import neuron
from npubox.errors import DeviceError
if sys.argv[1:]:
    with neuron.open("/dev/neuron0") as devices:
        devices[0].mark_cores(1)
        memory = devices[0].allocate(4096)
        memory.write(b"secret")
        print(memory.address, flush=True)
        sys.stdin.read()
        assert memory.read(6) == b"secret"
    sys.exit()
victim = subprocess.Popen([sys.executable, sys.argv[0], "victim"], stdin=-1, stdout=-1, text=True)
address = int(victim.stdout.readline())
with neuron.open("/dev/neuron0") as devices:
    device = devices[0]
    (core,) = device.mark_cores(1)
    errors = device.notifications(core, neuron.NotificationType.ERROR)
    loot = device.allocate(4096)
    for queue, (source, destination) in enumerate([(address, loot.address), (loot.address, address)]):
        with device.ring(3 * core, queue) as ring:
            ring.push(source, destination, 64)
            ring.start()
            print(*(entry.error.name for entry in errors.wait()))
    print(bytes(loot.view()) == bytes(4096))
    for reach in (lambda: device.node.map(address, 4096), lambda: device.semaphore(0, 1).value):
        try:
            reach()
        except DeviceError as error:
            print(str(error).split("(")[-1].rstrip(")"))
victim.communicate("")
print(victim.returncode)
"""
SYSFS = "/sys/class/neuron_device/neuron1"


@pytest.mark.parametrize("options", [(), ("-static",)], ids=["dynamic", "static"])
def test_a_c_program(compiled: Compile, options: tuple[str, ...]) -> None:
    done = run(compiled("neuron", *options), options=["-m", "inf1.xlarge"])
    assert done.stdout == "all right\n"


def test_chips_in_a_process_of_their_own(compiled: Compile, tmp_path: Path) -> None:
    machine = tmp_path / "machine.toml"
    machine.write_text(
        'description = "two chips"\npolicy = "strict"\n[[neuron]]\nchips = 2\ndevice = 0x7064\n'
        "revision = 255\nslot = 1\napart = true\n"
    )
    assert run(compiled("neuron"), options=["-m", str(machine)]).stdout == "all right\n"


def test_tools_count_the_cores_as_ray_does() -> None:
    """The very look that Ray takes: directory, command, options, key."""
    if not Path("/opt").is_dir():
        pytest.skip("needs a directory /opt to show the tool in")
    done = run(sys.executable, "-c", LIKE_RAY, options=["-m", "inf1.24xlarge"])
    assert done.stdout == "64\n"


def test_sysfs() -> None:
    total = "neuron_core3/stats/status/success/total"
    files = ("core_count", "connected_devices", "info/architecture/device_name", total)
    done = run("cat", *(f"{SYSFS}/{name}" for name in files), options=["-m", "inf1.6xlarge"])
    assert done.stdout == "42, 0\nInferentia\n0\n"


def test_sysfs_follows_what_programs_do() -> None:
    script = (
        "import time; from npubox import neuron\n"
        f"path = {SYSFS.replace('1', '0')!r} + '/neuron_core1/stats/memory_usage/device_mem/total'\n"
        "with neuron.open('/dev/neuron0') as devices:\n"
        "    memory = devices[0].allocate(8192, core=1)\n"
        "    deadline = time.monotonic() + 20\n"
        "    while open(path).read() != '8192\\n':\n"
        "        assert time.monotonic() < deadline\n"
        "        time.sleep(0.01)\n"
        "print('seen')\n"
    )
    assert run(sys.executable, "-c", script, options=["-m", "inf1.xlarge"]).stdout == "seen\n"


@pytest.mark.parametrize("isolate", [False, True], ids=["faithful", "isolate"])
def test_a_killed_process_leaves_nothing(compiled: Compile, tmp_path: Path, isolate: bool) -> None:
    """Not even while its child still holds the descriptor."""
    machine = tmp_path / "machine.toml"
    machine.write_text(
        'description = "one chip"\npolicy = "strict"\n[[neuron]]\ndevice = 0x7064\nrevision = 255\nslot = 1\n'
        f"isolate = {str(isolate).lower()}\n"
    )
    done = run(sys.executable, "-c", HELD_AND_KILLED, compiled("neuron_held"), options=["-m", str(machine)])
    assert done.stdout == "held: ENOMEM\ncores: (0, 1, 2, 3)\nlock: taken\n"


def test_two_processes_kept_apart(tmp_path: Path) -> None:
    """Neither by descriptors nor by calls does one reach the other's memory and cores."""
    machine = tmp_path / "machine.toml"
    machine.write_text(
        'description = "one chip"\npolicy = "strict"\n[[neuron]]\ndevice = 0x7064\nrevision = 255\nslot = 1\n'
        "isolate = true\n"
    )
    script = tmp_path / "script.py"
    script.write_text(KEPT_APART)
    done = run(sys.executable, script, options=["-m", str(machine)])
    assert done.stdout.split() == ["DENIED", "DENIED", "True", "EPERM", "EACCES", "0"]
