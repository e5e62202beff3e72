# SPDX-License-Identifier: Apache-2.0
"""The `npubox` command: what people type. Each command is a module; heavy imports wait for its job.

Exit codes: 0 the thing happened, 1 it failed on the way (a job, a write), 2 bad input. Errors are one
sentence on stderr.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

import npubox
from npubox.cli import compile as compile_command
from npubox.cli import devices as devices_command
from npubox.cli import disasm as disasm_command
from npubox.cli import doctor as doctor_command
from npubox.cli import exec as exec_command
from npubox.cli import inference_runner as inference_runner_command
from npubox.cli import neuron_ls as neuron_ls_command
from npubox.cli import run as run_command
from npubox.cli import serve as serve_command
from npubox.cli import trace as trace_command
from npubox.cli import vfio_user as vfio_user_command
from npubox.cli.options import Failed
from npubox.errors import JobFailed, NpuboxError, WaitTimeout

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

app = typer.Typer(
    help="Run, test and debug NPU software on the machine you have.",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run_command.run)
app.command("devices")(devices_command.devices)
app.command("compile")(compile_command.compile_)
app.command("disasm")(disasm_command.disasm)
app.command("doctor")(doctor_command.doctor)
app.command("exec", context_settings={"allow_interspersed_args": False})(exec_command.exec_)
app.command("neuron-ls")(neuron_ls_command.neuron_ls)
app.command("inference-runner")(inference_runner_command.inference_runner)
app.command("serve")(serve_command.serve)
app.command("vfio-user")(vfio_user_command.vfio_user)
app.command("trace", context_settings={"allow_interspersed_args": False})(trace_command.trace)

_UsageError: type[Exception] = typer.BadParameter.__mro__[
    1
]  # click's, wherever this version of typer keeps it


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"npubox {npubox.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    del version


def main() -> None:
    """The entry point of the `npubox` command."""
    sys.exit(_run(sys.argv[1:] or ["--help"]))


def _run(arguments: list[str]) -> int:
    if arguments[0] == "inference-runner":
        arguments = inference_runner_command.join_pairs(arguments)
    try:
        status = typer.main.get_command(app).main(arguments, prog_name="npubox", standalone_mode=False)
        sys.stdout.flush()
        return int(status or 0)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (JobFailed, WaitTimeout, Failed) as error:
        return _complain(error, FAILED)
    except NpuboxError as error:
        return _complain(error, BAD_INPUT)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _complain(f"{where}{error.strerror or error}", FAILED)
    except _UsageError as error:
        message = error.format_message()  # type: ignore[attr-defined]
        return _complain(f"{message} See `npubox --help`.", BAD_INPUT)


def _complain(what: object, status: int) -> int:
    print(f"npubox: {' '.join(str(what).split())}", file=sys.stderr)
    return status
