"""Where a process shows its metrics, whether it is well, and, on the driver, who else does.

/metrics for Prometheus, /healthz for people and probes, /sd for Prometheus' ``http_sd_configs``.
Nothing can be changed through it, and nothing waits for it.
"""

from __future__ import annotations

import errno
import json
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from threading import Thread
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CONTENT_TYPE_LATEST

LOOPBACK = "127.0.0.1"
_JSON = "application/json"
_CLIENT_SECONDS = 10.0
"""A client that is slower than this is let go."""
_PROMETHEUS = "Prometheus/"
"""How its requests begin to say who asks."""
_EVERYWHERE = ("0.0.0.0", "::", "")


@dataclass(frozen=True, slots=True)
class Target:
    """A process to scrape."""

    address: str
    """host:port."""
    role: str
    run: str


def port_range(first: int, count: int) -> range:
    """The ports to try, in order; ``first`` 0: whichever the system gives."""
    return range(first, first + count) if first else range(1)


def sd_document(targets: Sequence[Target]) -> list[dict[str, Any]]:
    """As Prometheus' HTTP service discovery wants it: one entry per role and run."""
    addresses: dict[tuple[str, str], list[str]] = {}
    for target in targets:
        addresses.setdefault((target.role, target.run), []).append(target.address)
    return [
        {"targets": found, "labels": {"role": role, "run": run}}
        for (role, run), found in addresses.items()
    ]


class Exposition:
    """An HTTP server in threads of its own, from its construction until ``close``."""

    def __init__(
        self,
        metrics: Callable[[], bytes],
        *,
        ports: range,
        host: str = LOOPBACK,
        health: Callable[[], str] = str,
        targets: Callable[[], Sequence[Target]] | None = None,
    ) -> None:
        """
        Args:
            metrics: the text of /metrics, ``Telemetry.exposition``.
            ports: tried in order; the first that is free is taken.
            health: one line that says what is wrong; empty: all is well.
            targets: who is listed at /sd; None: this process lists nobody.

        Raises:
            OSError: no port is free, or ``host`` is not an address of this machine.
        """
        pages: dict[str, Callable[[], _Page]] = {
            "/metrics": lambda: _Page(HTTPStatus.OK, CONTENT_TYPE_LATEST, metrics()),
            "/healthz": lambda: _health_page(health),
        }
        if targets is not None:
            pages["/sd"] = lambda: _json_page(HTTPStatus.OK, sd_document(targets()))
        self._host = host
        self._server = _listen(host, ports, pages)
        self._thread = Thread(target=self._server.serve_forever, name="exposition", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def address(self) -> str:
        """host:port at which others reach it."""
        host = self._host
        if host in _EVERYWHERE:
            host = socket.gethostbyname(socket.gethostname())
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def last_visit(self, page: str) -> float | None:
        """When Prometheus last asked for a page, by the monotonic clock; None: not yet."""
        return self._server.visits.get(page)

    def close(self) -> None:
        """Stop; the port is free afterwards. A second time nothing happens."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Exposition:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class _Page:
    status: HTTPStatus
    content_type: str
    body: bytes


def _json_page(status: HTTPStatus, value: object) -> _Page:
    return _Page(status, _JSON, json.dumps(value).encode() + b"\n")


def _health_page(health: Callable[[], str]) -> _Page:
    reason = health()
    if reason:
        return _json_page(
            HTTPStatus.SERVICE_UNAVAILABLE, {"healthy": False, "reason": _one_line(reason)}
        )
    return _json_page(HTTPStatus.OK, {"healthy": True})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], pages: Mapping[str, Callable[[], _Page]]) -> None:
        self.pages = pages
        self.visits: dict[str, float] = {}
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own asks a name server for the host's name, which can take seconds.
        TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is its own affair."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _CLIENT_SECONDS
    server: _Server

    def do_GET(self) -> None:
        pages, path = self.server.pages, urlsplit(self.path).path
        began, make = time.monotonic(), pages.get(path)
        if make is None:
            page = _json_page(HTTPStatus.NOT_FOUND, {"reason": f"here are {', '.join(pages)}"})
        else:
            try:
                page = make()
            except Exception as error:
                # Whoever asks must hear of it: a thread of the server has nobody else to tell.
                reason = f"{type(error).__name__}: {_one_line(str(error))}"
                page = _json_page(HTTPStatus.SERVICE_UNAVAILABLE, {"reason": reason})
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.end_headers()
        if self.headers.get("User-Agent", "").startswith(_PROMETHEUS):
            self.server.visits[path] = began
        self.wfile.write(page.body)

    def log_message(self, format: str, *args: object) -> None:
        """A scrape a few seconds is no news."""


def _listen(host: str, ports: range, pages: Mapping[str, Callable[[], _Page]]) -> _Server:
    last: OSError | None = None
    for port in ports:
        try:
            return _Server((host, port), pages)
        except PermissionError as error:
            last = error
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise OSError(
                    f"cannot show metrics on {host}: {error.strerror or error}; set cluster.bind "
                    "to an address of this machine"
                ) from error
            last = error
    raise OSError(
        f"cannot show metrics: none of the ports {ports.start} to {ports.stop - 1} of {host} can "
        f"be had ({last}); set cluster.metrics_port to the first of others, or to 0 for any"
    ) from last


def _one_line(text: str) -> str:
    return " ".join(text.split())
