# SPDX-License-Identifier: Apache-2.0
"""Decode an ioctl's argument by name, every field, with what its pointers lead to."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from typing import Any

from npubox.tools import ethosu_linux_fields, sync_fields
from npubox.tools.ethosu_linux_fields import COUNTED
from npubox.tools.ioctl_fields import DECLARATIONS, ENUMS, HEXADECIMAL, POINTERS
from npubox.tools.pointers import Pointer
from npubox.uapi import neuron
from npubox.uapi.drm_numbers import MODESET_MASTER_NUMBERS, MODESET_NUMBERS, NUMBERS
from npubox.uapi.ioctl import NUMBER_MASK, Ioctl, ioc_nr, ioc_size, ioc_type

MOST_BYTES = 64
MOST_ELEMENTS = 16
Read = Callable[[int, int], bytes]  # (address, size): OSError where it cannot

_BY_NR = {ioc_nr(declaration.number): declaration for declaration in DECLARATIONS}
_BY_NUMBER: dict[int, Ioctl[Any]] = {
    declaration.number: declaration
    for declaration in (*neuron.IOCTLS, *ethosu_linux_fields.DECLARATIONS, *sync_fields.DECLARATIONS)
}
_NAMES = {
    ioc_nr(number): f"DRM_IOCTL_{name}"
    for name, number in [
        *((name, number) for name, (number, _) in NUMBERS.items()),
        *MODESET_NUMBERS.items(),
        *MODESET_MASTER_NUMBERS.items(),
    ]
}


def declaration_of(request: int) -> Ioctl[Any] | None:
    """The declaration behind a request, by its nr as the DRM core does; None for an undeclared one."""
    if ioc_type(request) == "d":
        return _BY_NR.get(ioc_nr(request))
    return _BY_NUMBER.get(request & NUMBER_MASK)


def name_of(request: int) -> str:
    """The header's name of a request, or its number where no header has it."""
    request &= NUMBER_MASK
    declaration = declaration_of(request)
    if declaration is not None:
        return declaration.name
    known = _NAMES.get(ioc_nr(request)) if ioc_type(request) == "d" else None
    return known or f"{request:#010x}"


def decode(request: int, address: int, read: Read, *, ending: bool) -> dict[str, Any]:
    """The fields of the argument as they are now. `ending` also follows pointers that the driver fills.

    A field that cannot be read is given as "EFAULT"; an undeclared ioctl as its bytes in hex.
    """
    declaration = declaration_of(request)
    size = ioc_size(request)
    if declaration is not None and ioc_type(request) == neuron.NEURON:
        size = ctypes.sizeof(declaration.struct)  # the number's size is mostly that of a pointer
    if not size:
        return {}
    try:
        data = read(address, size)
    except OSError:
        return {"argument": "EFAULT"}
    if declaration is None:
        return {"bytes": data[:MOST_BYTES].hex()}
    whole = data.ljust(ctypes.sizeof(declaration.struct), b"\0")
    return _fields(declaration.struct.from_buffer_copy(whole), read, ending)


def message_fields(message: ctypes.Structure) -> dict[str, Any]:
    """The fields of a message that was copied out of a queue."""
    return _fields(message, _no_pointers, ending=False)


def _no_pointers(address: int, size: int) -> bytes:
    raise OSError(f"a message has no pointer, such as {address:#x}")


def _fields(struct: ctypes.Structure, read: Read, ending: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for field in struct._fields_:
        name = field[0]
        value = getattr(struct, name)
        pointer = POINTERS.get((type(struct), name))
        if isinstance(value, bytes):
            shown[name] = value.decode("utf-8", "replace")
        elif isinstance(value, ctypes.Array):
            most = getattr(struct, COUNTED.get(name, ""), MOST_ELEMENTS)
            shown[name] = _elements(value[: min(most, MOST_ELEMENTS)], read, ending)
        elif isinstance(value, ctypes.Structure):
            shown[name] = _fields(value, read, ending)
        elif pointer is not None and value and (ending or not pointer.written):
            count = getattr(struct, pointer.count) if pointer.count else 1
            shown[name] = _pointed(pointer, value, count, read, ending)
        elif pointer is not None:
            shown[name] = f"{value:#x}" if value else None
        else:
            shown[name] = _named(type(struct), name, value)
    return shown


def _elements(values: Iterable[Any], read: Read, ending: bool) -> list[Any]:
    shown: list[Any] = []
    for value in values:
        if isinstance(value, ctypes.Structure):
            shown.append(_fields(value, read, ending))
        else:
            shown.append(_elements(value, read, ending) if isinstance(value, ctypes.Array) else value)
    return shown


def _pointed(pointer: Pointer, address: int, count: int, read: Read, ending: bool) -> Any:
    try:
        if pointer.struct is None:
            data = read(address, min(count, MOST_BYTES))
            if pointer.text:
                return data.decode("utf-8", "replace")
            return data.hex() + ("…" if count > MOST_BYTES else "")
        size = ctypes.sizeof(pointer.struct)
        data = read(address, size * min(count, MOST_ELEMENTS))
    except OSError:
        return "EFAULT"
    elements = [
        _fields(pointer.struct.from_buffer_copy(data, start), read, ending)
        for start in range(0, len(data), size)
    ]
    return elements if pointer.count else elements[0]


def _named(struct: type[ctypes.Structure], name: str, value: int) -> int | str:
    if (struct, name) in HEXADECIMAL:
        return f"{value:#x}"
    enum = ENUMS.get((struct, name))
    if enum is None:
        return value
    try:
        return enum(value).name or value
    except ValueError:
        return value
