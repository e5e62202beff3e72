# SPDX-License-Identifier: Apache-2.0
"""A program that shares buffers: python shared_buffers.py WHAT, on the refaccel machine. Prints what it saw.

It knows nothing of npubox but the numbers and structs of the kernel's headers.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

from npubox.uapi import dma_buf, drm, refaccel, sw_sync
from npubox.uapi.ioctl import Ioctl, StructT

PAGE = mmap.PAGESIZE
NODE = "/dev/accel/accel0"
PATIENCE = 30


def call(file: int, ioctl: Ioctl[StructT], /, **fields: int) -> StructT:
    args = ioctl.struct(**fields)
    fcntl.ioctl(file, ioctl.number, args)
    return args


def exported(node: int, pages: int = 2) -> tuple[int, int, int]:
    """A buffer object's handle, its mmap offset and its dma-buf."""
    bo = call(node, refaccel.CREATE_BO, size=pages * PAGE)
    buffer = call(node, drm.PRIME_HANDLE_TO_FD, handle=bo.handle, flags=os.O_CLOEXEC | os.O_RDWR, fd=-1)
    return bo.handle, bo.offset, buffer.fd


def same_pages() -> None:
    """The node's mapping and the dma-buf's are the same memory, at any page of it."""
    node = os.open(NODE, os.O_RDWR)
    _, offset, buffer = exported(node)
    whole = mmap.mmap(node, 2 * PAGE, offset=offset)
    second = mmap.mmap(buffer, PAGE, offset=PAGE)
    second[:5] = b"hello"
    print(whole[PAGE : PAGE + 5].decode())
    private = ctypes.CDLL(None, use_errno=True).mmap64
    private.restype = ctypes.c_void_p
    failed = private(None, ctypes.c_size_t(PAGE), 1, mmap.MAP_PRIVATE, buffer, ctypes.c_int64(0))
    print(ctypes.c_ssize_t(failed).value, os.strerror(ctypes.get_errno()))


def outlives() -> None:
    """A mapping outlives its dma-buf, the handle and the node; another process has the same pages."""
    node = os.open(NODE, os.O_RDWR)
    handle, _, buffer = exported(node)
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        _, (fd,), _, _ = socket.recv_fds(theirs, 1, 1)
        view = mmap.mmap(fd, 2 * PAGE)
        os.close(fd)
        theirs.send(b"m")
        theirs.recv(1)
        os._exit(view[0])
    socket.send_fds(ours, [b"f"], [buffer])
    view = mmap.mmap(buffer, PAGE)
    ours.recv(1)
    call(node, drm.GEM_CLOSE, handle=handle)
    os.close(buffer)
    os.close(node)
    view[0] = 42
    ours.send(b"g")
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def storm() -> None:
    """Threads map while signals hail on the process: every mapping is right, no signal is lost for good."""
    hits = 0

    def hit(*_: object) -> None:
        nonlocal hits
        hits += 1

    signal.signal(signal.SIGALRM, hit)
    # Without SA_RESTART, a call that a signal meets before the supervisor has received it ends with EINTR.
    signal.siginterrupt(signal.SIGALRM, False)
    node = os.open(NODE, os.O_RDWR)
    right = []

    def work(number: int) -> None:
        _, offset, buffer = exported(node)
        with mmap.mmap(node, 2 * PAGE, offset=offset) as view:
            view[0] = number
        for _ in range(25):
            with mmap.mmap(buffer, 2 * PAGE) as view:
                right.append(view[0] == number)
        os.close(buffer)

    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(len(right), all(right), hits > 0)


def fenced(node: int) -> tuple[int, int]:
    """A timeline, and a dma-buf that is busy until it advances by one."""
    timeline = os.open("/dev/sw_sync", os.O_RDWR)
    _, _, buffer = exported(node)
    fence = call(timeline, sw_sync.CREATE_FENCE, value=1).fence
    flags = int(dma_buf.SyncFlag.WRITE)
    call(buffer, dma_buf.IMPORT_SYNC_FILE, flags=flags, fd=fence)
    os.close(fence)
    return timeline, buffer


def polls() -> None:
    """poll of a busy dma-buf alone, beside a pipe, and in an epoll instance."""
    node = os.open(NODE, os.O_RDWR)
    timeline, buffer = fenced(node)
    poll = select.poll()
    poll.register(buffer, select.POLLIN | select.POLLOUT)
    print("busy", poll.poll(0), len(poll.poll(50)))
    reader, writer = os.pipe()
    poll.register(reader, select.POLLIN)
    threading.Timer(0.1, os.write, (writer, b"x")).start()
    print("pipe", poll.poll(PATIENCE * 1000) == [(reader, select.POLLIN)])
    poll.unregister(reader)
    epoll = select.epoll()
    epoll.register(buffer, select.EPOLLIN)
    print("epoll", epoll.poll(0.05))
    threading.Timer(0.1, call, (timeline, sw_sync.INC), {"value": 1}).start()
    print("fence", poll.poll(PATIENCE * 1000) == [(buffer, select.POLLIN | select.POLLOUT)])
    print("epoll", epoll.poll(PATIENCE) == [(buffer, select.EPOLLIN)])


def selects() -> None:
    """select of a busy dma-buf: in vain, beside a pipe, and until its fence."""
    node = os.open(NODE, os.O_RDWR)
    timeline, buffer = fenced(node)
    reader, writer = os.pipe()
    print("busy", select.select([buffer], [buffer], [buffer], 0.05))
    hung_up, end = os.pipe()
    os.close(end)
    start = time.monotonic()
    print("hung up", select.select([buffer], [], [hung_up], 0.05), time.monotonic() - start >= 0.05)
    threading.Timer(0.1, os.write, (writer, b"x")).start()
    print("pipe", select.select([buffer, reader], [], [], PATIENCE) == ([reader], [], []))
    threading.Timer(0.1, call, (timeline, sw_sync.INC), {"value": 1}).start()
    print("fence", select.select([buffer], [buffer], [], PATIENCE) == ([buffer], [buffer], []))
    print("done", select.select([buffer], [buffer], [buffer], PATIENCE) == ([buffer], [buffer], []))


def waits_end() -> None:
    """A poll that waits ends with a signal, and with the timeline's last descriptor."""
    node = os.open(NODE, os.O_RDWR)
    timeline, buffer = fenced(node)
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(InterruptedError))
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    poll = select.poll()
    poll.register(buffer, select.POLLIN)
    with contextlib.suppress(InterruptedError):
        poll.poll(PATIENCE * 1000)
        print("not interrupted")
    threading.Timer(0.1, os.close, (timeline,)).start()
    start = time.monotonic()
    print(poll.poll(PATIENCE * 1000) == [(buffer, select.POLLIN)], time.monotonic() - start < PATIENCE)


WHAT: dict[str, Callable[[], None]] = {
    what.__name__: what for what in (same_pages, outlives, storm, polls, selects, waits_end)
}

if __name__ == "__main__":
    WHAT[sys.argv[1]]()
