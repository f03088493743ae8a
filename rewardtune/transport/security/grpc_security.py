"""gRPC ports and channels with ``[security]``: TLS, clients' certificates, bearer tokens."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import grpc

from rewardtune.transport.security.config import SecurityConfig
from rewardtune.transport.security.credentials import load_credentials, load_token

TOKEN_REFUSED = "this server asks for a bearer token, and the call brought none or another one"
_AUTHORIZATION = "authorization"
_OF_TLS = ("handshake", "CERTIFICATE", "SSL_", "certificate", "peer name", "WRONG_VERSION")
"""Words of gRPC's own, when two ends do not come to terms."""


class MetadataCheck(grpc.ServerInterceptor):
    """Lets calls through that bring what they must, and refuses the others."""

    def __init__(self, expected: Mapping[str, str], *, refusal: str) -> None:
        self._expected = {name: value.encode() for name, value in expected.items()}

        def refuse(request: object, context: grpc.ServicerContext) -> NoReturn:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, refusal)

        self._refused: Any = grpc.unary_unary_rpc_method_handler(refuse)

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        given = dict(details.invocation_metadata)
        for name, expected in self._expected.items():
            value = given.get(name, "")
            told = value if isinstance(value, bytes) else value.encode()
            if not hmac.compare_digest(told, expected):
                return self._refused
        return continuation(details)


def token_check(security: SecurityConfig) -> list[grpc.ServerInterceptor]:
    """Of a server's ``interceptors``: none where there is no token.

    Raises:
        ValueError: the token cannot be read, or would come in the clear.
    """
    token = load_token(security)
    if token is None:
        return []
    if security.certificate is None:
        raise ValueError(
            "security.token_file needs security.certificate and security.key to serve by: without "
            "TLS whoever listens could read the token"
        )
    return [MetadataCheck({_AUTHORIZATION: f"Bearer {token}"}, refusal=TOKEN_REFUSED)]


def add_port(server: grpc.Server, address: str, security: SecurityConfig) -> int:
    """Listen at host:port, by TLS alone where ``security`` has a certificate; returns the port.

    Raises:
        RuntimeError: as gRPC's own, where it cannot listen.
        ValueError: as ``load_credentials``.
    """
    if security.certificate is None:
        return server.add_insecure_port(address)
    found = load_credentials(security)
    assert found.certificate is not None and found.key is not None
    return server.add_secure_port(
        address,
        grpc.ssl_server_credentials(
            [(found.key, found.certificate)],
            root_certificates=found.ca if security.verify_clients else None,
            require_client_auth=security.verify_clients,
        ),
    )


def open_channel(
    address: str, security: SecurityConfig | None, *, options: Sequence[tuple[str, Any]]
) -> grpc.Channel:
    """To host:port; connects when it is first asked something.

    Args:
        security: None: in the clear.

    Raises:
        ValueError: as ``load_credentials``.
    """
    if security is None:
        return grpc.insecure_channel(address, options=list(options))
    found = load_credentials(security)
    credentials = grpc.ssl_channel_credentials(found.ca, found.key, found.certificate)
    if security.server_name is not None:
        options = [*options, ("grpc.ssl_target_name_override", security.server_name)]
    return grpc.secure_channel(address, credentials, options=list(options))


def token_metadata(security: SecurityConfig | None) -> tuple[tuple[str, str], ...]:
    """What a call brings beside its message: the token, over TLS alone.

    Raises:
        ValueError: as ``load_token``.
    """
    token = None if security is None else load_token(security)
    return () if token is None else ((_AUTHORIZATION, f"Bearer {token}"),)


def tls_trouble(details: str, security: SecurityConfig | None) -> str | None:
    """What to do about an UNAVAILABLE that trying again does not end; None: it is another."""
    if not any(word in details for word in _OF_TLS):
        return None
    reason = " ".join(details.split())[:200]
    if security is None:
        return f"it seems to speak TLS, and was called in the clear ({reason})"
    return (
        f"no TLS comes about with it ({reason}): security.ca ({security.ca or 'the system'})"
        " must have signed its certificate, which must name its host or security.server_name; "
        "where it asks for one, set security.certificate and security.key"
    )
