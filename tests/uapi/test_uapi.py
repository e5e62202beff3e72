# SPDX-License-Identifier: Apache-2.0
"""Every number, size and offset of the upper waist, against the facts and the system's own headers."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from npubox.uapi import drm, ethosu_accel
from npubox.uapi.drm_numbers import MODESET_MASTER_NUMBERS, MODESET_NUMBERS, NUMBERS, UNHANDLED_NUMBERS
from npubox.uapi.ioctl import Dir, Ioctl, encode, ioc_dir, ioc_nr, ioc_size, ioc_type

Layout = tuple[int, dict[str, int]]

CORE: dict[str, tuple[Ioctl[Any], int]] = {
    "VERSION": (drm.VERSION, 0xC0406400),
    "GET_UNIQUE": (drm.GET_UNIQUE, 0xC0106401),
    "GET_MAGIC": (drm.GET_MAGIC, 0x80046402),
    "GET_CLIENT": (drm.GET_CLIENT, 0xC0286405),
    "GET_STATS": (drm.GET_STATS, 0x80F86406),
    "GEM_CLOSE": (drm.GEM_CLOSE, 0x40086409),
    "GEM_FLINK": (drm.GEM_FLINK, 0xC008640A),
    "GEM_OPEN": (drm.GEM_OPEN, 0xC010640B),
    "GET_CAP": (drm.GET_CAP, 0xC010640C),
    "SET_CLIENT_CAP": (drm.SET_CLIENT_CAP, 0x4010640D),
    "SET_MASTER": (drm.SET_MASTER, 0x0000641E),
    "DROP_MASTER": (drm.DROP_MASTER, 0x0000641F),
    "FINISH": (drm.FINISH, 0x4008642C),
    "PRIME_HANDLE_TO_FD": (drm.PRIME_HANDLE_TO_FD, 0xC00C642D),
    "PRIME_FD_TO_HANDLE": (drm.PRIME_FD_TO_HANDLE, 0xC00C642E),
    "SET_CLIENT_NAME": (drm.SET_CLIENT_NAME, 0xC01064D1),
}
CORE_LAYOUTS: dict[str, tuple[type[ctypes.Structure], Layout]] = {
    "drm_version": (
        drm.Version,
        (
            64,
            {
                "version_major": 0,
                "version_minor": 4,
                "version_patchlevel": 8,
                "name_len": 16,
                "name": 24,
                "date_len": 32,
                "date": 40,
                "desc_len": 48,
                "desc": 56,
            },
        ),
    ),
    "drm_unique": (drm.Unique, (16, {"unique_len": 0, "unique": 8})),
    "drm_auth": (drm.Auth, (4, {"magic": 0})),
    "drm_client": (
        drm.Client,
        (40, {"idx": 0, "auth": 4, "pid": 8, "uid": 16, "magic": 24, "iocs": 32}),
    ),
    "drm_stats": (drm.Stats, (248, {"count": 0, "data": 8})),
    "drm_gem_close": (drm.GemClose, (8, {"handle": 0, "pad": 4})),
    "drm_gem_flink": (drm.GemFlink, (8, {"handle": 0, "name": 4})),
    "drm_gem_open": (drm.GemOpen, (16, {"name": 0, "handle": 4, "size": 8})),
    "drm_get_cap": (drm.GetCap, (16, {"capability": 0, "value": 8})),
    "drm_set_client_cap": (drm.SetClientCap, (16, {"capability": 0, "value": 8})),
    "drm_lock": (drm.Lock, (8, {"context": 0, "flags": 4})),
    "drm_prime_handle": (drm.PrimeHandle, (12, {"handle": 0, "flags": 4, "fd": 8})),
    "drm_set_client_name": (drm.SetClientName, (16, {"name_len": 0, "name": 8})),
}
ETHOSU: dict[str, tuple[Ioctl[Any], int]] = {
    "DEV_QUERY": (ethosu_accel.DEV_QUERY, 0xC0106440),
    "BO_CREATE": (ethosu_accel.BO_CREATE, 0xC0106441),
    "BO_WAIT": (ethosu_accel.BO_WAIT, 0xC0106442),
    "BO_MMAP_OFFSET": (ethosu_accel.BO_MMAP_OFFSET, 0xC0106443),
    "CMDSTREAM_BO_CREATE": (ethosu_accel.CMDSTREAM_BO_CREATE, 0xC0186444),
    "SUBMIT": (ethosu_accel.SUBMIT, 0xC0106445),
    "PERFMON_CREATE": (ethosu_accel.PERFMON_CREATE, 0xC0186446),
    "PERFMON_DESTROY": (ethosu_accel.PERFMON_DESTROY, 0xC0046447),
    "PERFMON_GET_VALUES": (ethosu_accel.PERFMON_GET_VALUES, 0xC0106448),
    "PERFMON_SET_GLOBAL": (ethosu_accel.PERFMON_SET_GLOBAL, 0xC0086449),
}
ETHOSU_LAYOUTS: dict[str, tuple[type[ctypes.Structure], Layout]] = {
    "drm_ethosu_dev_query": (ethosu_accel.DevQuery, (16, {"type": 0, "size": 4, "pointer": 8})),
    "drm_ethosu_npu_info": (ethosu_accel.NpuInfo, (12, {"id": 0, "config": 4, "sram_size": 8})),
    "drm_ethosu_bo_create": (ethosu_accel.BoCreate, (16, {"size": 0, "flags": 8, "handle": 12})),
    "drm_ethosu_bo_wait": (ethosu_accel.BoWait, (16, {"handle": 0, "pad": 4, "timeout_ns": 8})),
    "drm_ethosu_bo_mmap_offset": (ethosu_accel.BoMmapOffset, (16, {"handle": 0, "pad": 4, "offset": 8})),
    "drm_ethosu_cmdstream_bo_create": (
        ethosu_accel.CmdstreamBoCreate,
        (24, {"size": 0, "flags": 4, "data": 8, "handle": 16, "pad": 20}),
    ),
    "drm_ethosu_job": (ethosu_accel.Job, (40, {"cmd_bo": 0, "sram_size": 4, "region_bo_handles": 8})),
    "drm_ethosu_submit": (ethosu_accel.Submit, (16, {"jobs": 0, "job_count": 8, "pad": 12})),
}
PERFMON_LAYOUTS: dict[str, tuple[type[ctypes.Structure], Layout]] = {
    "npu_info": (
        ethosu_accel.NpuInfoPerfmon,
        (16, {"id": 0, "config": 4, "sram_size": 8, "pmu_counters": 12}),
    ),
    "submit": (ethosu_accel.SubmitPerfmon, (16, {"jobs": 0, "job_count": 8, "perfmon_id": 12})),
    "create": (ethosu_accel.PerfmonCreate, (24, {"id": 0, "ncounters": 4, "counters": 8})),
    "destroy": (ethosu_accel.PerfmonDestroy, (4, {"id": 0})),
    "get_values": (ethosu_accel.PerfmonGetValues, (16, {"id": 0, "pad": 4, "values_ptr": 8})),
    "set_global": (ethosu_accel.PerfmonSetGlobal, (8, {"flags": 0, "id": 4})),
}


def layout(struct: type[ctypes.Structure]) -> Layout:
    names = [field[0] for field in struct._fields_]
    return ctypes.sizeof(struct), {name: getattr(struct, name).offset for name in names}


@pytest.mark.parametrize("name", [*CORE, *ETHOSU])
def test_the_number_is_the_facts(name: str) -> None:
    declared, number = {**CORE, **ETHOSU}[name]
    assert declared.number == number
    assert ioc_type(number) == "d"
    assert ioc_size(number) == ctypes.sizeof(declared.struct)


@pytest.mark.parametrize("name", [*CORE_LAYOUTS, *ETHOSU_LAYOUTS, *PERFMON_LAYOUTS])
def test_the_layout_is_the_facts(name: str) -> None:
    struct, expected = {**CORE_LAYOUTS, **ETHOSU_LAYOUTS, **PERFMON_LAYOUTS}[name]
    assert layout(struct) == expected


def test_every_declared_ioctl_is_compared() -> None:
    declared = {*drm.IOCTLS, *ethosu_accel.IOCTLS, *ethosu_accel.PERFMON_IOCTLS}
    assert declared == {row[0] for row in (*CORE.values(), *ETHOSU.values())}


def test_the_core_table_has_each_number_once() -> None:
    numbers = [number for number, _ in NUMBERS.values()]
    numbers += [*MODESET_NUMBERS.values(), *MODESET_MASTER_NUMBERS.values(), *UNHANDLED_NUMBERS.values()]
    nrs = [ioc_nr(number) for number in numbers]
    assert len(set(nrs)) == len(nrs)
    assert all(ioc_type(number) == "d" and ioc_nr(number) < drm.CORE_TABLE_LENGTH for number in numbers)
    assert not any(drm.COMMAND_BASE <= nr < drm.COMMAND_END for nr in nrs)
    for name, (declared, number) in CORE.items():
        assert NUMBERS[name][0] == declared.number == number


def test_encoder_refuses_what_does_not_fit() -> None:
    for bad in ((0x100, 0), (0, 1 << 14), (-1, 0)):
        with pytest.raises(ValueError, match="no ioctl number"):
            encode(Dir.READ, "d", *bad)


def run_c(tmp_path: Path, source: str) -> dict[str, list[int]]:
    """Compile and run a C program that prints `name number...` lines."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc or clang) on this machine")
    program = tmp_path / "uapi.c"
    program.write_text(source)
    built = subprocess.run(
        [compiler, str(program), "-o", str(tmp_path / "uapi")], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    out = subprocess.run([str(tmp_path / "uapi")], capture_output=True, text=True, check=True).stdout
    return {line.split()[0]: [int(word, 0) for word in line.split()[1:]] for line in out.splitlines()}


def test_the_encoding_is_the_system_headers(tmp_path: Path) -> None:
    cases = [(d, nr, size) for d in range(4) for nr in (0, 0x40, 0xFF) for size in (0, 16, 0x3FFF)]
    macro = {0: "_IOC_NONE", 1: "_IOC_WRITE", 2: "_IOC_READ", 3: "_IOC_READ|_IOC_WRITE"}
    prints = "".join(
        f"printf(\"{d}/{nr}/{size} %#lx\\n\", (unsigned long)_IOC({macro[d]}, 'd', {nr}, {size}));"
        for d, nr, size in cases
    )
    values = run_c(
        tmp_path, f"#include <stdio.h>\n#include <sys/ioctl.h>\nint main(void){{{prints}return 0;}}"
    )
    for d, nr, size in cases:
        number = encode(Dir(d), "d", nr, size)
        assert values[f"{d}/{nr}/{size}"] == [number]
        assert (ioc_dir(number), ioc_type(number), ioc_nr(number), ioc_size(number)) == (d, "d", nr, size)


def header_source(
    header: str,
    prefix: str,
    ioctls: dict[str, Any],
    structs: dict[str, tuple[type[ctypes.Structure], Layout]],
) -> str:
    lines = [
        f"#if __has_include(<{header}>)\n#include <{header}>\n#define HAVE 1\n#endif",
        "#include <stdio.h>\n#include <stddef.h>\nint main(void) {\n#ifdef HAVE",
    ]
    users = {declared.struct: name for name, (declared, _) in ioctls.items()}
    for name in ioctls:
        lines.append(
            f'#ifdef {prefix}{name}\nprintf("{name} %#lx\\n", (unsigned long){prefix}{name});\n#endif'
        )
    for c_name, (struct, (_, offsets)) in structs.items():
        guard = users.get(struct)
        lines.append(f"#ifdef {prefix}{guard}" if guard else "#if 1")
        members = "".join(f", offsetof(struct {c_name}, {field})" for field in offsets)
        formats = " %zu" * len(offsets)
        lines.append(f'printf("{c_name} %zu{formats}\\n", sizeof(struct {c_name}){members});\n#endif')
    lines.append("#endif\nreturn 0; }")
    return "\n".join(lines)


def compare_with_headers(
    tmp_path: Path,
    header: str,
    prefix: str,
    ioctls: dict[str, tuple[Ioctl[Any], int]],
    structs: dict[str, tuple[type[ctypes.Structure], Layout]],
) -> None:
    values = run_c(tmp_path, header_source(header, prefix, ioctls, structs))
    if not values:
        pytest.skip(f"this system's headers have no <{header}>; the facts' numbers were compared")
    for name, found in values.items():
        if name in ioctls:
            assert found == [ioctls[name][0].number], name
        else:
            size, offsets = layout(structs[name][0])
            assert found == [size, *offsets.values()], name


@pytest.mark.parametrize(
    ("header", "prefix", "ioctls", "structs"),
    [
        ("drm/drm.h", "DRM_IOCTL_", CORE, CORE_LAYOUTS),
        ("libdrm/drm.h", "DRM_IOCTL_", CORE, CORE_LAYOUTS),
        ("drm/ethosu_accel.h", "DRM_IOCTL_ETHOSU_", ETHOSU, ETHOSU_LAYOUTS),
    ],
    ids=["drm.h", "libdrm", "ethosu_accel.h"],
)
def test_numbers_and_layouts_are_the_system_headers(
    tmp_path: Path,
    header: str,
    prefix: str,
    ioctls: dict[str, tuple[Ioctl[Any], int]],
    structs: dict[str, tuple[type[ctypes.Structure], Layout]],
) -> None:
    compare_with_headers(tmp_path, header, prefix, ioctls, structs)
