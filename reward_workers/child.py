"""The worker's end of one scorer: start it, hand it a group, hear from it, kill it.

Nothing here blocks on the child. Children die with the thread that started them
(PR_SET_PDEATHSIG), so one thread must own them all and outlive them.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from enum import StrEnum

from reward_workers.scorer_wire import (
    MAX_TEXT_BYTES,
    BrokenFrame,
    FrameReader,
    Reply,
    Start,
    Started,
    group_frame,
    read_reply,
    start_frame,
)

_RECEIVE_BYTES = 2**18
_EXIT_SECONDS = 0.5


class ChildState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    BUSY = "busy"


class ChildDied(Exception):
    """The scorer is no more; the message says how it ended."""


class ScorerChild:
    """One running scorer. Its owner watches ``channel`` and calls ``send`` and ``receive``."""

    def __init__(
        self, start: Start, *, threads: int, startup_seconds: float, started_at: float
    ) -> None:
        """Start the process; it is STARTING until ``receive`` has returned its ``Started``.

        Raises:
            OSError: the machine has no room for another process.
        """
        self.state = ChildState.STARTING
        self.due = started_at + startup_seconds
        """When it has taken too long; infinity while nothing is asked of it."""
        self.num_groups = 0
        self._deadline_seconds = start.deadline_seconds
        self._reader = FrameReader()
        self._unsent = bytearray()
        self._note_fd = os.memfd_create("scorer-note")
        self.channel, theirs = socket.socketpair()
        self.channel.setblocking(False)
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, self._note_fd)
            undo.enter_context(self.channel)
            with theirs:
                self._process = _spawn(theirs.fileno(), self._note_fd, threads=threads)
            undo.pop_all()
        self._send(start_frame(start))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_sending(self) -> bool:
        """There are bytes that the socket would not take yet: ``flush`` when it will."""
        return bool(self._unsent)

    def ask(self, body: bytes, *, now: float) -> None:
        """Hand over one group's bytes; only while READY."""
        assert self.state is ChildState.READY, f"a {self.state} scorer takes no group"
        self.state = ChildState.BUSY
        self.due = now + self._deadline_seconds
        self.num_groups += 1
        self._send(group_frame(body))

    def flush(self) -> None:
        """Send what is left to send, as far as the socket takes it."""
        try:
            while self._unsent:
                del self._unsent[: self.channel.send(self._unsent)]
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            self._unsent.clear()  # it is gone, which receive notices and explains

    def receive(self) -> Reply | None:
        """Its answer, if that is complete; READY again then.

        Raises:
            ChildDied: it ended, or spoke nonsense and was killed.
        """
        try:
            data = self.channel.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            data = b""
        if not data:
            raise ChildDied(self._reap())
        try:
            self._reader.feed(data)
            frame = self._reader.next()
            if frame is None:
                return None
            reply = read_reply(frame)
        except BrokenFrame as error:
            self.kill()
            raise ChildDied(f"scorer sent {error}") from None
        self.state = ChildState.READY
        self.due = math.inf
        if isinstance(reply, Started) and reply.is_human:
            self._deadline_seconds = math.inf
        return reply

    def note(self) -> str:
        """Where it was when it crashed or was about to be late: Python's stacks, if any."""
        return os.pread(self._note_fd, MAX_TEXT_BYTES, 0).decode(errors="replace")

    def kill(self) -> None:
        """End it and everything that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Kill it and let go of what belonged to it."""
        if self._process.returncode is None:
            self.kill()
        self.channel.close()
        os.close(self._note_fd)

    def _send(self, frame: bytes) -> None:
        self._unsent += frame
        self.flush()

    def _reap(self) -> str:
        """How it ended, by its own doing if it did."""
        give_up = time.monotonic() + _EXIT_SECONDS
        while not self._has_exited() and time.monotonic() < give_up:
            time.sleep(0.002)
        has_exited = self._has_exited()
        self.kill()
        if not has_exited:
            return "scorer closed its channel and was killed"
        code = self._process.returncode
        if code >= 0:
            return f"scorer ended with exit code {code}"
        return f"scorer was ended by {_signal_name(-code)}"

    def _has_exited(self) -> bool:
        # Without reaping: until then its number is its own, and its group can be killed by it.
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._process.pid, flags) is not None


def _spawn(channel_fd: int, note_fd: int, *, threads: int) -> subprocess.Popen[bytes]:
    # -P: a file in the current folder must not shadow a module. -u: what reward code prints
    # just before it is killed is worth most.
    command = [sys.executable, "-P", "-u", "-m", "reward_workers.scorer"]
    return subprocess.Popen(
        [*command, str(channel_fd), str(note_fd), str(os.getpid())],
        env={**os.environ, **_environment(threads)},
        stdin=subprocess.DEVNULL,
        pass_fds=(channel_fd, note_fd),
        # A group of its own: Ctrl-C in a terminal is for the worker, which drains; and what
        # reward code has started is killed with it.
        start_new_session=True,
    )


def _environment(threads: int) -> Mapping[str, str]:
    pools = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "NUMBA", "BLIS", "VECLIB")
    return {
        # Read by libraries as they load, so they are set before there is a process.
        **{f"{pool}_NUM_THREADS": str(threads) for pool in pools},
        "OMP_WAIT_POLICY": "passive",
        # The child imports what its worker would.
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    }


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
