"""``python -m deploy.check_dashboards --sd URL [DASHBOARD ...]``: does every panel show something?

Starts a Prometheus of its own with the scrape settings of deploy/monitoring, lets it find the
processes of a run through the driver's ``/sd``, and asks it what Grafana would ask. Fails on a
panel that stays empty and on a metric that no process reports.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from deploy.dashboard import Dashboard, Target

HERE = Path(__file__).resolve().parent
SCRAPE_SECONDS = 1
"""Instead of the 15 s of production: a check is over sooner."""
_RATE_SECONDS = 4 * SCRAPE_SECONDS
_START_SECONDS = 30.0
_POLL_SECONDS = 0.5
_GPU_DRIVER = Path("/proc/driver/nvidia")


class NoPrometheus(RuntimeError):
    """There is no Prometheus to ask, or it does not start."""


class Prometheus:
    """A running server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def label_values(self, label: str, metric: str) -> list[str]:
        return list(self._ask(f"label/{label}/values", {"match[]": metric}))

    def has_values(self, expression: str, *, seconds: float) -> bool:
        """Whether the last so many seconds hold a finite value of it."""
        now = time.time()
        found = self._ask(
            "query_range",
            {"query": expression, "start": now - seconds, "end": now, "step": SCRAPE_SECONDS},
        )
        return any(
            math.isfinite(float(value))
            for series in found["result"]
            for _, value in series["values"]
        )

    def alerts(self) -> list[dict[str, Any]]:
        """Alert rules as the server sees them."""
        groups = self._ask("rules", {"type": "alert"})["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def _ask(self, what: str, parameters: dict[str, Any]) -> Any:
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{what}?{query}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(f"{json.load(error)['error']} in {parameters}") from None


@contextmanager
def running_prometheus(sd_url: str) -> Iterator[Prometheus]:
    """One that scrapes what ``sd_url`` lists, with the rules of deploy/monitoring.

    Raises:
        NoPrometheus: it is not installed, or does not start.
    """
    binary = shutil.which("prometheus")
    if binary is None:
        raise NoPrometheus(
            "no prometheus is installed (Debian, Ubuntu: apt-get install prometheus)"
        )
    with tempfile.TemporaryDirectory(prefix="rt-prometheus-") as folder:
        config = Path(folder, "prometheus.yml")
        config.write_text(yaml.safe_dump(scrape_config(sd_url)))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        log = Path(folder, "log")
        with log.open("wb") as output:
            server = subprocess.Popen(
                [
                    binary,
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address={address}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            _wait_until_ready(server, f"http://{address}", log)
            yield Prometheus(f"http://{address}")
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=30)


def scrape_config(sd_url: str) -> dict[str, Any]:
    """deploy/monitoring/prometheus.yml for another address and in a hurry."""
    folder = HERE / "monitoring"
    config: dict[str, Any] = yaml.safe_load((folder / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(config["global"], f"{SCRAPE_SECONDS}s")
    config["rule_files"] = [str(folder / name) for name in config["rule_files"]]
    for job in config["scrape_configs"]:
        for discovery in job["http_sd_configs"]:
            discovery |= {"url": sd_url, "refresh_interval": f"{SCRAPE_SECONDS}s"}
    return config


def answerable(dashboard: Dashboard) -> list[Target]:
    """Its queries, without those of a GPU if this machine has none."""
    return [each for each in dashboard.targets() if _GPU_DRIVER.exists() or not each.needs_gpu]


def empty_targets(prometheus: Prometheus, dashboard: Dashboard, *, seconds: float) -> list[Target]:
    """Queries that stayed without a value for ``seconds``."""
    until = time.monotonic() + seconds
    waiting = answerable(dashboard)
    while True:
        variables = {}
        for variable in dashboard.variables():
            if found := prometheus.label_values(variable.label, variable.metric):
                variables[variable.name] = found[0]
        if len(variables) == len(dashboard.variables()):
            waiting = [
                target
                for target in waiting
                if not prometheus.has_values(
                    target.filled(variables, rate_seconds=_RATE_SECONDS), seconds=seconds
                )
            ]
        if not waiting or time.monotonic() > until:
            return waiting
        time.sleep(_POLL_SECONDS)


def check(sd_url: str, dashboards: Sequence[Path], *, seconds: float) -> list[str]:
    """What is wrong, a line each; empty if every panel shows something.

    Raises:
        NoPrometheus: there is none to ask.
    """
    found = []
    with running_prometheus(sd_url) as prometheus:
        for path in dashboards:
            dashboard = Dashboard.read(path)
            found += [f"{path.name}: {problem}" for problem in dashboard.problems()]
            empty = empty_targets(prometheus, dashboard, seconds=seconds)
            if len(empty) == len(answerable(dashboard)):
                found.append(f"no process could be scraped: is {sd_url} the /sd of a run's driver?")
                return found
            found += [
                f"{path.name}: panel '{t.panel}' {t.ref} shows nothing: {t.expression}"
                for t in empty
            ]
    return found


def _wait_until_ready(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=5):
                return
        except OSError:
            time.sleep(0.05)
    raise NoPrometheus(f"prometheus does not start: {log.read_text()[-500:]}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.check_dashboards", description=__doc__)
    parser.add_argument("--sd", required=True, metavar="URL", help="the driver's http://.../sd")
    parser.add_argument("--seconds", type=float, default=60.0, help="for a panel to show something")
    parser.add_argument(
        "dashboards", nargs="*", type=Path, default=sorted(HERE.glob("grafana/dashboards/*.json"))
    )
    told = parser.parse_args(arguments)
    try:
        found = check(told.sd, told.dashboards, seconds=told.seconds)
    except NoPrometheus as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for problem in found:
        print(problem, file=sys.stderr)
    if not found:
        num_targets = sum(len(Dashboard.read(path).targets()) for path in told.dashboards)
        print(f"{num_targets} queries of {len(told.dashboards)} dashboards all have data")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
