"""Why a server ended a TLS connection, told by listening before anything is said to it.

Since TLS 1.3 a server judges the client's certificate after the client holds the connection for
made. A client that writes at once finds it closed, and never reads the alert that says why.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

_LISTEN_SECONDS = 2.0


def listen_for_alert(
    host: str, port: int, *, ca: Path | None, certificate: Path | None, key: Path | None
) -> ssl.SSLError | None:
    """Connect once more, and say nothing; None: the server has nothing against us.

    Raises:
        OSError: it cannot be reached.
    """
    context = ssl.create_default_context(cafile=ca)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    try:
        with (
            socket.create_connection((host, port), timeout=_LISTEN_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as encrypted,
        ):
            encrypted.recv(1)
    except ssl.SSLError as error:
        return error
    except TimeoutError:
        return None
    return None
