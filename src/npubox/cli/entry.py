# SPDX-License-Identifier: Apache-2.0
"""Where the `npubox` command begins. `exec` with nothing to explain starts without the rest of it."""

from __future__ import annotations

import sys


def main() -> None:
    """The entry point of the `npubox` command."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["exec"] and (plain := _plain(arguments[1:])) is not None:
        from npubox.cli.program import run_program

        sys.exit(run_program(*plain))
    from npubox.cli.main import main as whole

    whole()


def _plain(arguments: list[str]) -> tuple[list[str], str | None] | None:
    """(command, machine) of an exec with no option but --machine, else None."""
    machine = None
    if arguments[:1] == ["--machine"] and len(arguments) > 2:
        machine, arguments = arguments[1], arguments[2:]
    if arguments[:1] == ["--"]:
        arguments = arguments[1:]
    elif arguments[:1] and arguments[0].startswith("-"):
        return None
    return (arguments, machine) if arguments else None
