"""What ``[security]`` names, read from its files and held against each other."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from rewardtune.transport.security.config import SecurityConfig
from rewardtune.transport.security.secret_file import read_private, read_public, read_secret

TOKEN_FILE = "security.token_file"


@dataclass(frozen=True, slots=True)
class Credentials:
    """PEM bytes and the token, as gRPC takes them. Not to be logged."""

    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    token: str | None = None

    def __repr__(self) -> str:
        return "Credentials(...)"


def load_credentials(security: SecurityConfig) -> Credentials:
    """Read every file that is named; a file that changed is seen by the next start.

    Raises:
        ValueError: one cannot be read, is no PEM, does not belong to the other, or is a secret
            that others can read.
    """
    ca = certificate = key = None
    if security.ca is not None:
        ca = read_public(security.ca, what="security.ca")
        _check_authorities(security.ca)
    if security.certificate is not None and security.key is not None:
        certificate = read_public(security.certificate, what="security.certificate")
        key = read_private(security.key, what="security.key")
        _check_pair(security.certificate, security.key)
    return Credentials(ca=ca, certificate=certificate, key=key, token=load_token(security))


def load_token(security: SecurityConfig) -> str | None:
    """Raises ValueError: it cannot be read, or is nothing that a call can bring."""
    if security.token_file is None:
        return None
    token = read_secret(security.token_file, what=TOKEN_FILE)
    if not token.isascii() or not token.isprintable():
        raise ValueError(
            f"{TOKEN_FILE} {security.token_file} holds more than printable ASCII: make one by "
            "openssl rand -hex 32"
        )
    return token


def _check_authorities(path: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise ValueError(
            f"security.ca {path} holds no certificate ({_reason(error)}): give the PEM file of "
            "the authority"
        ) from error


def _check_pair(certificate: Path, key: Path) -> None:
    def no_password() -> str:
        # Without it OpenSSL would ask at the terminal, and a service would wait there for ever.
        raise ValueError(f"security.key {key} is encrypted: give one without a password")

    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key, password=no_password)
    except ssl.SSLError as error:
        raise ValueError(
            f"security.certificate {certificate} and security.key {key} are no pair "
            f"({_reason(error)}): give a PEM certificate and its own private key"
        ) from error


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "no PEM").replace("_", " ").lower()
