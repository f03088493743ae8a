"""``rewardtune reward-worker``: score for a run from a plain process, outside Ray."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from rewardtune.cli.security_options import (
    Ca,
    Certificate,
    Key,
    ServerName,
    TokenFile,
    security_of,
)
from rewardtune.transport.queue.address import ENVIRONMENT_VARIABLE, has_password

MAX_PORT = 65_535


def reward_worker(
    run: Annotated[str, typer.Option(help="Name of the run.")],
    data: Annotated[Path, typer.Option(help="Folder of the run's training data.")],
    queue: Annotated[
        str | None,
        typer.Option(
            "--queue",
            "--redis",
            help="Address of the run's queue, redis://HOST:PORT; by default that in "
            f"{ENVIRONMENT_VARIABLE}.",
        ),
    ] = None,
    redis_file: Annotated[
        Path | None, typer.Option(help="File that holds the address instead, mode 0600.")
    ] = None,
    code: Annotated[
        Path | None,
        typer.Option(help="Folder of the run's own modules: RUN/code, or a copy of it."),
    ] = None,
    artefacts: Annotated[
        Path | None,
        typer.Option(
            help="Folder with this machine's copies of files that the run's config names."
        ),
    ] = None,
    num_scorers: Annotated[int, typer.Option(min=1, help="Processes that score.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Of each; as the run has them.")] = 1,
    deadline_seconds: Annotated[
        float, typer.Option(min=0.001, help="For one group; then its scorer is killed.")
    ] = 60.0,
    lease_seconds: Annotated[
        float, typer.Option(min=0.1, help="The run's: how long the queue trusts a silent worker.")
    ] = 30.0,
    max_groups_per_scorer: Annotated[
        int | None, typer.Option(min=1, help="Replace a scorer after so many: for leaks.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=MAX_PORT, help="Serve Prometheus here.")
    ] = None,
    health_port: Annotated[
        int | None, typer.Option(min=0, max=MAX_PORT, help="Serve gRPC health here.")
    ] = None,
    host: Annotated[str, typer.Option(help="Interface of both.")] = "127.0.0.1",
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    token_file: TokenFile = None,
    server_name: ServerName = None,
) -> None:
    """Lease groups from a run's queue, score them, commit each result once.

    SIGTERM and SIGINT drain it: what is being scored is finished, the rest given back. It needs
    neither torch nor ray.
    """
    import logging
    import sys

    from reward_workers.config import RewardWorkerConfig
    from reward_workers.service import serve
    from rewardtune.transport.queue.job_queue import QueueRefused

    if code is not None:
        if not code.is_dir():
            raise ValueError(f"--code {code} is not a folder: give the one that holds the modules")
        # Never before our own, which none of them may shadow.
        sys.path.append(str(code.absolute()))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    config = RewardWorkerConfig(
        num_scorers=num_scorers,
        threads=threads,
        deadline_seconds=deadline_seconds,
        lease_seconds=lease_seconds,
        max_groups_per_scorer=max_groups_per_scorer,
    )
    address = _address(queue, redis_file)
    if has_password(address):
        # Refusing would break commands that work; whoever shares the machine can read it all the
        # same.
        logging.getLogger(__name__).warning(
            "the password in --queue stands in the process list: set %s, or give --redis-file",
            ENVIRONMENT_VARIABLE,
        )
    try:
        exit_code = serve(
            config,
            queue_url=address,
            run=run,
            data_path=data,
            artefacts_path=artefacts,
            security=security_of(
                ca=ca,
                certificate=certificate,
                key=key,
                token_file=token_file,
                server_name=server_name,
            ),
            metrics_port=metrics_port,
            health_port=health_port,
            host=host,
        )
    except QueueRefused as error:
        raise ValueError(str(error)) from error
    raise typer.Exit(exit_code)


def _address(queue: str | None, redis_file: Path | None) -> str:
    """What was given, else where the environment has it; no password by itself."""
    if queue is not None and redis_file is not None:
        raise ValueError("--queue and --redis-file both say where the queue is: give one of them")
    if redis_file is not None:
        return f"file:{redis_file}"
    if queue is None and not os.environ.get(ENVIRONMENT_VARIABLE):
        raise ValueError(
            f"the queue's address is missing: set {ENVIRONMENT_VARIABLE}, or give --queue or "
            "--redis-file"
        )
    return queue if queue is not None else f"env:{ENVIRONMENT_VARIABLE}"
