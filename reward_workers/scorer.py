"""The child that runs reward code: ``python -m reward_workers.scorer``, started by ``child.py``.

It may hang, crash or be killed at any time without harm: it holds no lease and writes nothing.
Frames go over a socket of their own, so reward code may print; what it prints goes to stderr.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import math
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator, Sequence

_PR_SET_PDEATHSIG = 1
_RECEIVE_BYTES = 2**18
# The note is written before the worker kills.
_NOTE_AFTER = 0.9
# Groups. Python keeps up to 2000 freed tuples of every size, some megabytes that fill slowly and
# look like a leak; a full collection, which may not come for 100,000 groups, lets go of them.
_COLLECT_EVERY = 500


def main(arguments: Sequence[str]) -> None:
    """Serve until the worker closes its end.

    Args:
        arguments: numbers of the socket, of the file for notes, and of the worker's process.
    """
    socket_fd, note_fd, parent = (int(argument) for argument in arguments)
    _die_with(parent)
    # Core dumps of a crashing reward would fill disks; the note says where it was.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Processes that reward code starts must neither hold nor see the channel.
    for fd in (socket_fd, note_fd):
        os.set_inheritable(fd, False)
    os.dup2(2, 1)
    faulthandler.enable(file=note_fd)
    with socket.socket(fileno=socket_fd) as channel:
        _serve(channel, note_fd)


def _serve(channel: socket.socket, note_fd: int) -> None:
    # Not before this process is tied to the worker's: these take a second to load.
    from reward_workers.prepared import prepare
    from reward_workers.scorer_wire import Start, read_request, reply_frame

    prepared, num_groups = None, 0
    for frame in _frames(channel):
        request = read_request(frame)
        if isinstance(request, Start):
            start = request
            prepared = prepare(start)
            # What is loaded stays: later collections need not go through it.
            gc.collect()
            gc.freeze()
            channel.sendall(reply_frame(prepared.started))
        else:
            assert prepared is not None and prepared.scorer is not None, "no group was due"
            # People take their time.
            seconds = math.inf if prepared.started.is_human else start.deadline_seconds
            with _noting_where_it_hangs(seconds, note_fd):
                reply = prepared.scorer.score(request)
            channel.sendall(reply_frame(reply))
            num_groups += 1
            if num_groups % _COLLECT_EVERY == 0:
                gc.collect()


def _frames(channel: socket.socket) -> Iterator[bytes]:
    from reward_workers.scorer_wire import FrameReader

    reader = FrameReader()
    while data := channel.recv(_RECEIVE_BYTES):
        reader.feed(data)
        while (frame := reader.next()) is not None:
            yield frame


@contextlib.contextmanager
def _noting_where_it_hangs(deadline_seconds: float, note_fd: int) -> Iterator[None]:
    os.ftruncate(note_fd, 0)
    os.lseek(note_fd, 0, os.SEEK_SET)
    if deadline_seconds < math.inf:
        faulthandler.dump_traceback_later(_NOTE_AFTER * deadline_seconds, file=note_fd)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _die_with(parent: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        sys.exit("the worker was gone before its scorer began")


if __name__ == "__main__":
    main(sys.argv[1:])
