"""``rewardtune redis-acl``: who may do what with one run's queue on a Redis."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_PLACEHOLDERS = {"learner": ">LEARNER_PASSWORD", "worker": ">WORKER_PASSWORD"}


def redis_acl(
    run: Annotated[str, typer.Argument(help="Name of the run: the last part of its directory.")],
    learner_password_file: Annotated[
        Path | None, typer.Option(help="Print the hash of this file's password.")
    ] = None,
    worker_password_file: Annotated[
        Path | None, typer.Option(help="Print the hash of this file's password.")
    ] = None,
) -> None:
    """Print the Redis users of a run, as lines of an ACL file.

    RUN-learner is for the job, RUN-worker for reward workers. Neither reaches another run's keys.
    Without a file a word in capitals stands for a password, to be put in its place.
    """
    from rewardtune.transport.queue.redis_acl import users

    files = {"learner": learner_password_file, "worker": worker_password_file}
    passwords = {
        name: _PLACEHOLDERS[name] if path is None else _password(path)
        for name, path in files.items()
    }
    for line in users(run, **passwords):
        typer.echo(line)


def _password(path: Path) -> str:
    password = path.read_text().strip()
    if not password:
        raise ValueError(f"{path} is empty: it must hold the password")
    return password
