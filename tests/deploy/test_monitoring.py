"""Alert rules and scrape settings, by Prometheus' own tools where they are installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.promql import problems
from rewardtune.transport.telemetry.metric_table import TARGET_LABELS
from tests.deploy.manifests import DEPLOY

FOLDER = DEPLOY / "monitoring"

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed (apt-get install prometheus)",
)


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def shown_labels(rule: dict[str, Any]) -> frozenset[str]:
    return frozenset(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))


def promtool(*arguments: str, folder: Path = FOLDER) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_asks_only_for_what_processes_report(rule: dict[str, Any]) -> None:
    assert problems(rule["expr"], shown_labels=shown_labels(rule)) == []


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_of_which_run_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["alert"].startswith("Rewardtune")
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "action"}
    assert "run" in shown_labels(rule) and "run" in TARGET_LABELS


def test_an_alert_on_a_renamed_metric_is_noticed() -> None:
    found = [problems(rule["expr"].replace("queue_oldest", "oldest")) for rule in alerts()]
    assert ["no process reports rewardtune_oldest_seconds"] in found


@pytest.mark.parametrize("fires", [True, False])
def test_unit_tests_see_every_alert_fire_and_be_silent(fires: bool) -> None:
    tests = yaml.safe_load((FOLDER / "rules_test.yml").read_text())["tests"]
    seen = {
        case["alertname"]
        for test in tests
        for case in test["alert_rule_test"]
        if bool(case["exp_alerts"]) is fires
    }
    assert seen == {rule["alert"] for rule in alerts()}


def test_the_operator_gets_the_same_rules() -> None:
    wrapped = yaml.safe_load((FOLDER / "prometheusrule.yaml").read_text())
    plain = yaml.safe_load((FOLDER / "rules.yaml").read_text())
    assert wrapped["spec"]["groups"] == plain["groups"]


@needs_promtool
def test_promtool_finds_rules_and_settings_in_order() -> None:
    for arguments in (("check", "rules", "rules.yaml"), ("check", "config", "prometheus.yml")):
        done = promtool(*arguments)
        assert done.returncode == 0, done.stderr


@needs_promtool
def test_the_rules_pass_their_unit_tests() -> None:
    done = promtool("test", "rules", "rules_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize(
    ("alert", "was", "is_now"),
    [
        ("RewardtuneRewardPoolFailing", "> 0.1", "> 0.5"),
        ("RewardtuneDriverDown", 'state=~"finished|drained|refused"', 'state="finished"'),
        ("RewardtuneDriverDown", "on (run, instance)", "on (run)"),
        ("RewardtuneDriverDown", "[2h]", "[15m]"),
        ("RewardtuneLearnerStalled", "rewardtune_run_step[", "rewardtune_learner_steps_total["),
        ("RewardtuneLearnerStalled", "changes(", "delta("),
        ("RewardtuneLearnerStalled", "(min_over_time", "(max_over_time"),
        ("RewardtuneRunRefused", 'state!="refused"', 'state="running", step="none"'),
        ("RewardtuneResultsRefused", "refused_total[15m])) > 0", "refused_total[15m])) > 9"),
    ],
)
def test_changed_rules_do_not(tmp_path: Path, alert: str, was: str, is_now: str) -> None:
    shutil.copy(FOLDER / "rules_test.yml", tmp_path)
    text = (FOLDER / "rules.yaml").read_text()
    assert was in text
    (tmp_path / "rules.yaml").write_text(text.replace(was, is_now))
    done = promtool("test", "rules", "rules_test.yml", folder=tmp_path)
    assert done.returncode != 0 and alert in done.stdout + done.stderr
