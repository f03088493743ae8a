"""Dashboards ask for what processes report, and a real Prometheus answers every panel."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy import check_dashboards
from deploy.check_dashboards import empty_targets, main, running_prometheus
from deploy.dashboard import Dashboard
from tests.deploy.fake_fleet import running_fleet

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
PATH = ROOT / "deploy/grafana/dashboards/rewardtune.json"

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None,
    reason="prometheus is not installed (apt-get install prometheus)",
)


def content() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(PATH.read_text())
    return read


def renamed(old: str, new: str) -> dict[str, Any]:
    changed: dict[str, Any] = json.loads(PATH.read_text().replace(old, new))
    assert changed != content()
    return changed


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_a_dashboard_asks_only_for_what_processes_report(path: Path) -> None:
    assert Dashboard.read(path).problems() == []


def test_the_dashboard_shows_what_an_operator_looks_for() -> None:
    asked = " ".join(target.expression for target in Dashboard.read(PATH).targets())
    for metric in (
        "run_state",
        "learner_steps_total",
        "samples_total",
        "learner_seconds_total",
        "reward_backlog",
        "queue_oldest_seconds",
        "reward_workers_required",
        "reward_workers",
        "reward_worker_errors_total",
        "policy_version",
        "staleness",
        "reward",
        "holdout_metric",
    ):
        assert f"rewardtune_{metric}{{" in asked


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("rewardtune_learner_steps_total", "rewardtune_steps_total", "no process reports"),
        ("by (phase)", "by (stage)", "has the label stage"),
        ('phase=\\"wait\\"', 'phase=\\"waiting\\"', "is never 'waiting'"),
        ('outcome=\\"accepted\\"', 'result=\\"accepted\\"', "has no label result"),
        ("{{component}}", "{{part}}", "has the label part"),
        ("label_values(rewardtune_build_info", "label_values(rewardtune_info", "variable run"),
        ("$run", "$name", "no variable is called"),
        ('"type": "timeseries"', '"type": "graph"', "no panel of type graph"),
        ('"uid": "${datasource}"', '"uid": "prometheus"', "must be the variable"),
        ('"refId": "B"', '"refId": "A"', "refId each"),
        ('"schemaVersion": 39', '"schemaVersion": 27', "schemaVersion"),
        ('"type": "datasource"', '"type": "custom"', "no datasource variable"),
    ],
)
def test_a_damaged_dashboard_is_told_so(old: str, new: str, complaint: str) -> None:
    assert any(complaint in problem for problem in Dashboard(renamed(old, new)).problems())


def test_panels_of_a_gpu_are_asked_about_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dashboard = Dashboard.read(PATH)
    monkeypatch.setattr(check_dashboards, "_GPU_DRIVER", tmp_path)
    with_gpu = check_dashboards.answerable(dashboard)
    monkeypatch.setattr(check_dashboards, "_GPU_DRIVER", tmp_path / "none")
    left_out = [
        target for target in with_gpu if target not in check_dashboards.answerable(dashboard)
    ]
    assert with_gpu == dashboard.targets()
    assert left_out != [] and all("rewardtune_gpu_" in target.expression for target in left_out)


def _same_id(content: dict[str, Any]) -> None:
    content["panels"][2]["id"] = content["panels"][1]["id"]


def _too_wide(content: dict[str, Any]) -> None:
    content["panels"][1]["gridPos"]["w"] = 25


@pytest.mark.parametrize(
    ("damage", "complaint"), [(_same_id, "is another panel's"), (_too_wide, "does not fit")]
)
def test_a_damaged_layout_is_told_so(
    damage: Callable[[dict[str, Any]], None], complaint: str
) -> None:
    damaged = copy.deepcopy(content())
    damage(damaged)
    (problem,) = Dashboard(damaged).problems()
    assert complaint in problem


@pytest.fixture(scope="module")
def fleet() -> Iterator[str]:
    with running_fleet() as url:
        yield url


@needs_prometheus
def test_every_panel_shows_something_of_a_run_and_a_renamed_metric_does_not(
    fleet: str, tmp_path: Path
) -> None:
    stale = tmp_path / "stale.json"
    stale.write_text(
        json.dumps(renamed("rewardtune_learner_steps_total", "rewardtune_steps_total"))
    )
    with running_prometheus(fleet) as prometheus:
        assert empty_targets(prometheus, Dashboard.read(PATH), seconds=60) == []
        empty = empty_targets(prometheus, Dashboard.read(stale), seconds=2)
        assert [target.panel for target in empty] == ["Steps per second"]
        unhealthy = [rule for rule in prometheus.alerts() if rule["health"] != "ok"]
        assert unhealthy == []


@needs_prometheus
def test_the_command_fails_on_a_panel_without_data(
    fleet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = content()
    small["panels"] = [
        panel for panel in small["panels"] if panel["title"] in ("Step", "Steps per second")
    ]
    good = tmp_path / "good.json"
    good.write_text(json.dumps(small))
    assert main(["--sd", fleet, str(good)]) == 0
    assert "2 queries of 1 dashboards all have data" in capsys.readouterr().out

    bad = tmp_path / "bad.json"
    bad.write_text(good.read_text().replace("learner_steps_total", "steps_total"))
    assert main(["--sd", fleet, "--seconds", "8", str(bad)]) == 1
    said = capsys.readouterr().err
    assert "no process reports rewardtune_steps_total" in said
    assert "'Steps per second' A shows nothing" in said


@needs_prometheus
def test_an_address_where_no_driver_answers_is_one_clear_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--sd", "http://127.0.0.1:9/sd", "--seconds", "0"]) == 1
    assert capsys.readouterr().err == (
        "no process could be scraped: is http://127.0.0.1:9/sd the /sd of a run's driver?\n"
    )


def test_without_prometheus_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["--sd", "http://127.0.0.1:9/sd"]) == 2
    assert "apt-get install prometheus" in capsys.readouterr().err
