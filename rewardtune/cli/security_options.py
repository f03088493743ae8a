"""``--ca``, ``--certificate`` ...: ``[security]`` for commands that read no run's config."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rewardtune.transport.security.config import VARIABLES, SecurityConfig

Ca = Annotated[
    Path | None,
    typer.Option(envvar=VARIABLES["ca"], help="PEM of the authorities that are believed."),
]
Certificate = Annotated[
    Path | None,
    typer.Option(envvar=VARIABLES["certificate"], help="PEM of what this process shows."),
]
Key = Annotated[Path | None, typer.Option(envvar=VARIABLES["key"], help="PEM of its private key.")]
TokenFile = Annotated[
    Path | None,
    typer.Option(envvar=VARIABLES["token_file"], help="File of the bearer token, mode 0600."),
]
ServerName = Annotated[
    str | None,
    typer.Option(
        envvar=VARIABLES["server_name"],
        help="The name in certificates of gRPC servers, if not their address.",
    ),
]


def security_of(
    *,
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    token_file: Path | None,
    server_name: str | None = None,
    verify_clients: bool = False,
) -> SecurityConfig:
    """Raises ValueError: they do not fit together."""
    from pydantic import ValidationError

    try:
        return SecurityConfig(
            ca=ca,
            certificate=certificate,
            key=key,
            token_file=token_file,
            server_name=server_name,
            verify_clients=verify_clients,
        )
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
