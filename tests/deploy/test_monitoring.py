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
    found = [problems(rule["expr"].replace("learner_steps", "steps")) for rule in alerts()]
    assert [each for each in found if each] == [["no process reports rewardtune_steps_total"]]


def test_every_alert_is_fired_by_a_unit_test() -> None:
    tests = yaml.safe_load((FOLDER / "rules_test.yml").read_text())["tests"]
    fired = {
        case["alertname"]
        for test in tests
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert fired == {rule["alert"] for rule in alerts()}


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
def test_the_rules_pass_their_unit_tests_and_changed_rules_do_not(tmp_path: Path) -> None:
    assert promtool("test", "rules", "rules_test.yml").returncode == 0
    shutil.copy(FOLDER / "rules_test.yml", tmp_path)
    text = (FOLDER / "rules.yaml").read_text()
    (tmp_path / "rules.yaml").write_text(text.replace("> 0.1", "> 0.5"))
    done = promtool("test", "rules", "rules_test.yml", folder=tmp_path)
    assert done.returncode != 0 and "RewardtuneRewardPoolFailing" in done.stdout + done.stderr
