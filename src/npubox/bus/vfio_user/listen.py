# SPDX-License-Identifier: Apache-2.0
"""The socket that vfio-user clients connect to."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading

from npubox.bus.port import PciDevice
from npubox.bus.vfio_user.server import Session


class Listener:
    """Serves a device at the path of a socket, one client after the other, on a thread of its own.

    OSError as bind(2) fails, EADDRINUSE where something else is. A socket file that nobody listens at is
    replaced. `close` ends the client's connection too.
    """

    def __init__(self, device: PciDevice, path: str) -> None:
        self._device = device
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._client: socket.socket | None = None
        try:
            self._bind()
            self._socket.listen(1)
        except OSError:
            self._socket.close()
            raise
        self._thread = threading.Thread(target=self._run, name="npubox-vfio-user", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        client = self._client
        if client is not None:
            with contextlib.suppress(OSError):  # it may have gone by itself
                client.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()
        os.unlink(self._path)

    def _bind(self) -> None:
        try:
            self._socket.bind(self._path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_stale(self._path):
                # A path that is too long has no errno
                reason = error.strerror or f"{error}"
                raise OSError(error.errno or errno.ENAMETOOLONG, f"{self._path}: {reason}") from None
            os.unlink(self._path)
            self._socket.bind(self._path)

    def _run(self) -> None:
        while True:
            try:
                self._client, _ = self._socket.accept()
            except OSError:
                return
            Session(self._device, self._client).run()
            self._client = None


def _is_stale(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
