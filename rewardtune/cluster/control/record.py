"""RUN/driver.json: where the driver of a live run can be reached, and by whom."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rewardtune.run.run_state import is_alive

DRIVER_NAME = "driver.json"


class NotLive(ConnectionError):
    """Nobody drives the run; the message is one line."""


@dataclass(frozen=True, slots=True)
class DriverRecord:
    """What stands in RUN/driver.json."""

    address: str
    """host:port of Control."""
    key: str
    host: str
    pid: int
    started: float
    """Seconds since 1970."""
    security: Mapping[str, str] = field(default_factory=dict)
    """The run's [security], paths alone: how to call a Control that speaks TLS; empty: in the
    clear."""

    @property
    def is_dead(self) -> bool:
        """Known to be; of another machine's process nothing is known."""
        return self.host == socket.gethostname() and not is_alive(self.pid)


def read_driver_record(directory: Path) -> DriverRecord:
    """Raises NotLive where there is none, or none that this user can read."""
    path = directory / DRIVER_NAME
    try:
        return DriverRecord(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise NotLive(
            f"run {directory} is not live: it has no {DRIVER_NAME}; start it by rewardtune tune"
        ) from None
    except PermissionError:
        raise NotLive(f"{path} belongs to another user: only the run's owner steers it") from None
    except (ValueError, TypeError) as error:
        raise NotLive(f"{path} cannot be read ({error}): another version wrote it") from None


def write_driver_record(directory: Path, record: DriverRecord) -> None:
    """Whole or not at all, for this user's eyes only; the directory is made if missing."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / DRIVER_NAME
    partial = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(record), file)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
