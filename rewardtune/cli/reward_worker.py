"""``rewardtune reward-worker``: score for a run from a plain process, outside Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def reward_worker(
    queue: Annotated[
        str, typer.Option("--queue", "--redis", help="URL of the run's queue: redis://HOST:PORT.")
    ],
    run: Annotated[str, typer.Option(help="Name of the run.")],
    data: Annotated[Path, typer.Option(help="Folder of the run's training data.")],
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
    metrics_port: Annotated[int | None, typer.Option(min=0, help="Serve Prometheus here.")] = None,
    health_port: Annotated[int | None, typer.Option(min=0, help="Serve gRPC health here.")] = None,
    host: Annotated[str, typer.Option(help="Interface of both.")] = "127.0.0.1",
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
    try:
        exit_code = serve(
            config,
            queue_url=queue,
            run=run,
            data_path=data,
            artefacts_path=artefacts,
            metrics_port=metrics_port,
            health_port=health_port,
            host=host,
        )
    except QueueRefused as error:
        raise ValueError(str(error)) from error
    raise typer.Exit(exit_code)
