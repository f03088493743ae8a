"""A driver goes when Prometheus has seen how its run ended, and waits for nobody else."""

from __future__ import annotations

import json
import shutil
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from deploy.check_dashboards import running_prometheus
from rewardtune.cluster import farewell
from rewardtune.cluster.farewell import DriverPage, driver_page, show_refusal
from rewardtune.config.cluster_config import ClusterConfig
from rewardtune.config.run_config import ConfigError
from rewardtune.run.run_state import RunStateFile, read_run_state

CLUSTER = ClusterConfig(metrics_port=0)


@pytest.fixture(autouse=True)
def _no_time_to_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farewell, "SETTLE_SECONDS", 0.0)


@contextmanager
def scraped(page: DriverPage) -> Iterator[list[tuple[str, str]]]:
    """Somebody who calls itself Prometheus asks for both pages in turn; what it was told."""
    answers: list[tuple[str, str]] = []
    is_over = Event()

    def scrape() -> None:
        while not is_over.wait(0.02):
            for path in ("/sd", "/metrics"):
                request = urllib.request.Request(
                    f"http://{page.exposition.address}{path}",
                    headers={"User-Agent": "Prometheus/2.42.0"},
                )
                with urllib.request.urlopen(request, timeout=10) as answer:
                    answers.append((path, answer.read().decode()))

    thread = Thread(target=scrape)
    thread.start()
    try:
        yield answers
    finally:
        is_over.set()
        thread.join()


def told_finished(directory: Path) -> RunStateFile:
    told = RunStateFile(directory, num_steps=3)
    told.ended(step=3)
    return told


def test_where_nobody_scrapes_nobody_waits(tmp_path: Path) -> None:
    began = time.monotonic()
    with driver_page(CLUSTER, told_finished(tmp_path), run="a", is_job=True):
        pass
    assert time.monotonic() < began + farewell.PATIENCE_SECONDS / 2


def test_the_last_state_is_seen_before_the_driver_is_listed_no_more(tmp_path: Path) -> None:
    page = DriverPage(CLUSTER, run="a")
    with page.exposition, scraped(page) as answers:
        while not any(path == "/metrics" for path, _ in answers):
            time.sleep(0.01)
        page.leave("finished", waits_for_first=False)
        told = list(answers)
    ended = 'rewardtune_run_state{state="finished"} 1.0'
    lists = [json.loads(text) for path, text in told if path == "/sd"]
    assert any(ended in text for path, text in told if path == "/metrics")
    assert lists[0] == [
        {"targets": [page.exposition.address], "labels": {"role": "driver", "run": "a"}}
    ]
    first_empty = next(i for i, (path, text) in enumerate(told) if path == "/sd" and text == "[]\n")
    assert any(ended in text for _, text in told[:first_empty])


@pytest.mark.parametrize(
    ("error", "is_job", "waits"),
    [
        (ConfigError("no such data"), True, True),
        (ConfigError("no such data"), False, False),
        (RuntimeError("out of memory"), True, False),
    ],
)
def test_a_job_that_is_refused_waits_to_be_seen_and_one_that_fails_does_not(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    is_job: bool,
    waits: bool,
) -> None:
    waited: list[str] = []
    monkeypatch.setattr(DriverPage, "_wait_for_visit", lambda page, path, _: waited.append(path))
    told = RunStateFile(tmp_path, num_steps=3)
    with (
        pytest.raises(type(error)),
        driver_page(CLUSTER, told, run="a", is_job=is_job),
    ):
        raise error
    assert waited == (["/metrics"] if waits else [])


@pytest.mark.parametrize("cluster", [{"metrics_port": 0}, {"metrics_port": "many"}, 7])
def test_a_config_that_is_refused_is_told_of_in_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Any
) -> None:
    monkeypatch.setattr(DriverPage, "_wait_for_visit", lambda *_: None)
    error = ConfigError("learner.num_steps = many: must be a number")
    show_refusal(tmp_path / "run", error, cluster=cluster, is_shown=True)
    told = read_run_state(tmp_path / "run")
    assert told is not None
    assert told.line == "refused: learner.num_steps = many: must be a number"


@pytest.mark.skipif(
    shutil.which("prometheus") is None,
    reason="prometheus is not installed (apt-get install prometheus)",
)
def test_a_real_prometheus_sees_the_end_and_no_driver_that_is_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(farewell, "SETTLE_SECONDS", 6.0)
    page = DriverPage(CLUSTER, run="a")
    with running_prometheus(f"http://{page.exposition.address}/sd") as prometheus:

        def asked(query: str) -> list[dict[str, Any]]:
            text = urllib.parse.urlencode({"query": query})
            with urllib.request.urlopen(f"{prometheus.url}/api/v1/query?{text}") as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found

        with page.exposition:
            while not asked('up{role="driver", run="a"} == 1'):
                time.sleep(0.1)
            page.leave("drained", waits_for_first=False)
        seen = asked('last_over_time(rewardtune_run_state{run="a", state="drained"}[1m]) == 1')
        assert len(seen) == 1
        until = time.monotonic() + 5.0
        while time.monotonic() < until:
            assert asked('up{role="driver"} == 0') == []
            time.sleep(0.5)
        assert asked("up") == []
