# SPDX-License-Identifier: Apache-2.0
"""Where `npubox serve` and `npubox exec` meet."""

from __future__ import annotations

import os
from pathlib import Path

from npubox.serve.workspace import temporary_directory


def socket_path(name: str) -> Path:
    """Where the machine called `name` listens; the directory is ours alone."""
    directory = Path(os.environ.get("XDG_RUNTIME_DIR") or temporary_directory()) / f"npubox-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    about = directory.lstat()
    if about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise PermissionError(f"{directory} is not ours alone")
    return directory / f"{name}.machine"
