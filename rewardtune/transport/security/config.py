"""``[security]``: which files prove who a process is, and whom it believes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator


class SecurityConfig(BaseModel):
    """Paths only, never a secret itself. Operations: a resume may change all of it.

    Without any of it nothing is encrypted but what ``rediss://`` and ``grpcs://`` ask for, which
    then believe the machine's own authorities.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ca: Path | None = None
    """PEM of the authorities that are believed: of ``rediss://``, ``grpcs://`` and Control."""

    certificate: Path | None = None
    """PEM of what this process shows: as a server, which then speaks TLS alone, and as a client
    that is asked for one. For both uses, so with serverAuth and clientAuth."""

    key: Path | None = None
    """PEM of the certificate's private key, for its owner's and group's eyes only."""

    token_file: Path | None = None
    """File of the bearer token that calls over gRPC bring, and that our servers ask for."""

    verify_clients: bool = False
    """Our gRPC servers also ask clients for a certificate that ``ca`` has signed."""

    server_name: str | None = None
    """The name in the certificates of gRPC servers, where it is not the address they are called
    at: pods have addresses that no certificate can name."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            given, missing = ("certificate", "key") if self.key is None else ("key", "certificate")
            raise ValueError(
                f"security.{given} needs security.{missing}: the two prove together who a process "
                "is"
            )
        if self.verify_clients and (self.ca is None or self.certificate is None):
            raise ValueError(
                "security.verify_clients needs security.ca, which signs the clients' certificates, "
                "and security.certificate"
            )
        return self

    def absolute(self) -> SecurityConfig:
        """The same for a process in another folder."""
        paths = {name: value.absolute() for name, value in self if isinstance(value, Path)}
        return self.model_copy(update=paths)

    def with_environment(self, environment: Mapping[str, str]) -> SecurityConfig:
        """What the variables of ``VARIABLES`` say over what is here.

        Raises:
            ValueError: they do not fit together.
        """
        told = {
            name: environment[variable]
            for name, variable in VARIABLES.items()
            if environment.get(variable)
        }
        return SecurityConfig.model_validate({**self.model_dump(), **told}) if told else self


VARIABLES = {
    "ca": "REWARDTUNE_TLS_CA",
    "certificate": "REWARDTUNE_TLS_CERTIFICATE",
    "key": "REWARDTUNE_TLS_KEY",
    "server_name": "REWARDTUNE_TLS_SERVER_NAME",
    "token_file": "REWARDTUNE_TOKEN_FILE",
}
"""Environment of the commands that talk to a run from outside: a field each."""

PLAIN = SecurityConfig()
