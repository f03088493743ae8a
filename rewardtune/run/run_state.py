"""RUN/state.json: how the last start of a run stands, or how it ended, for whoever comes later.

finished   the last step is taken                            exit 0
drained    stopped when asked to; its checkpoint is written  exit 0
refused    what it was given cannot be run, nor again        exit 2; 0 of a job, see ``--as-job``
failed     anything else: the same command goes on           exit 1

Before it ends it is starting, running, paused or draining; a process that was killed leaves that.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from rewardtune.json_file import write_json

STATE_NAME = "state.json"
HEARTBEAT_SECONDS = 10.0
"""Between two writes of one that stays in its state."""
_REFUSALS = frozenset(
    {
        *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS),
        *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    }
)
"""What a file system says of a path that is wrong. A full disk or a lost connection may pass."""


class End(StrEnum):
    """How a start of a run ended."""

    FINISHED = "finished"
    DRAINED = "drained"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RunState:
    """What stands in RUN/state.json."""

    state: str
    """An ``End``, or what the driver says while it lives."""
    step: int
    """Steps taken; of a start that was refused: 0."""
    num_steps: int
    """Of the whole run; 0: not known."""
    time: float
    """When it was so; seconds since 1970."""
    why: str
    """One line; empty where the state says all."""
    host: str
    pid: int

    @property
    def has_ended(self) -> bool:
        return self.state in tuple(End)

    @property
    def is_dead(self) -> bool:
        """It has not ended and never will; of another machine's process nothing is known."""
        return not self.has_ended and self.host == socket.gethostname() and not is_alive(self.pid)

    @property
    def line(self) -> str:
        """For people, such as ``drained at step 5 of 40``."""
        has_begun = self.num_steps and self.state != End.REFUSED
        where = f" at step {self.step} of {self.num_steps}" if has_begun else ""
        return f"{self.state}{where}" + (f": {self.why}" if self.why else "")


def read_run_state(directory: Path) -> RunState | None:
    """None where no start has written it, or one of another version."""
    try:
        return RunState(**json.loads((directory / STATE_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


class RunStateFile:
    """Keeps RUN/state.json. What the disk does not take is lost: no run ends for it."""

    def __init__(self, directory: Path, *, num_steps: int) -> None:
        self._directory = directory
        self._now = RunState(
            state="",
            step=0,
            num_steps=num_steps,
            time=0.0,
            why="",
            host=socket.gethostname(),
            pid=os.getpid(),
        )
        self._due = 0.0

    @property
    def now(self) -> RunState:
        """As it was told last."""
        return self._now

    def tell(self, state: str, *, step: int | None = None, why: str = "") -> None:
        """Write it if the state is another one, or ten seconds have passed.

        Args:
            step: None: as before.
        """
        is_news = (state, why) != (self._now.state, self._now.why)
        step = self._now.step if step is None else step
        self._now = replace(self._now, state=state, step=step, time=time.time(), why=why)
        if is_news or time.monotonic() >= self._due:
            self._due = time.monotonic() + HEARTBEAT_SECONDS
            with contextlib.suppress(OSError):
                write_json(self._directory / STATE_NAME, asdict(self._now))

    def ended(self, *, step: int) -> None:
        """In good order, after so many steps."""
        is_finished = step >= self._now.num_steps
        self.tell(End.FINISHED if is_finished else End.DRAINED, step=step)

    def ended_by(self, error: BaseException) -> None:
        """Refused or failed, with the error's first line."""
        line = str(error).strip().split("\n", 1)[0] or type(error).__name__
        self.tell(End.REFUSED if is_refusal(error) else End.FAILED, why=line)


@contextlib.contextmanager
def run_state(directory: Path, *, num_steps: int) -> Iterator[RunStateFile]:
    """Keep RUN/state.json while a run goes on; an error that leaves the block is its end."""
    from rewardtune.transport.term import StaleTerm

    told = RunStateFile(directory, num_steps=num_steps)
    told.tell("starting")
    try:
        yield told
    except StaleTerm:
        raise  # another start drives the run, and the file is that one's
    except BaseException as error:
        told.ended_by(error)
        raise


def is_refusal(error: BaseException) -> bool:
    """Whether the same command would come to the same error for ever: what it was given is bad."""
    if isinstance(error, OSError):
        return error.errno in _REFUSALS
    if not isinstance(error, RuntimeError):
        return isinstance(error, ValueError)
    # Torch, which whoever asks for a run's state need not wait for.
    from learner.checkpoint import CheckpointError
    from rewardtune.transport.queue.job_queue import QueueRefused

    return isinstance(error, CheckpointError | QueueRefused)


def is_alive(pid: int) -> bool:
    """Whether this machine has such a process, whoever's it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
