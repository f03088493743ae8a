"""``rewardtune reward-server``: serve a reward function to runs elsewhere, over gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rewardtune.cli.security_options import Ca, Certificate, Key, TokenFile, security_of


def reward_server(
    use: Annotated[
        str, typer.Argument(metavar="MODULE:FUNCTION", help="What scores, found on PYTHONPATH.")
    ],
    data: Annotated[Path, typer.Option(help="Folder of the run's training data.")],
    task: Annotated[str, typer.Option(help="Whose predictions are scored.")] = "detection",
    host: Annotated[str, typer.Option(help="Interface to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any that is free.")] = 0,
    human: Annotated[
        bool, typer.Option("--human", help="People score: no deadline, the run waits.")
    ] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="Groups scored at once.")] = 1,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="The function's own key=value; may be repeated."),
    ] = None,
    artefacts: Annotated[
        Path | None, typer.Option(help="Folder in which files named by options are looked for.")
    ] = None,
    certificate: Certificate = None,
    key: Key = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    verify_clients: Annotated[
        bool, typer.Option("--verify-clients", help="Ask for certificates that --ca has signed.")
    ] = False,
) -> None:
    """Serve a reward function: ``reward = "grpc://HOST:PORT"`` in a run's config asks it.

    It prints its address once it serves, grpcs:// with --certificate, and serves until it is
    stopped.
    """
    from pydantic import ValidationError

    from reward_workers.serving import ServedReward
    from rewardtune.cli.task_options import task_options
    from rewardtune.datasets.shards.dataset import open_dataset
    from rewardtune.transport.reward_service.server import RewardServer

    try:
        rewards = ServedReward(
            use,
            task_name=task,
            dataset=open_dataset(data),
            options=task_options(option or ()),
            is_human=human,
            max_concurrency=concurrency,
            artefacts=artefacts,
        )
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
    security = security_of(
        ca=ca,
        certificate=certificate,
        key=key,
        token_file=token_file,
        verify_clients=verify_clients,
    )
    with RewardServer(
        rewards, host=host, port=port, max_concurrency=concurrency, security=security
    ) as server:
        typer.echo(server.url)
        server.wait()
