"""What the operator's guide names is there."""

from __future__ import annotations

import re

import pytest
import yaml

from rewardtune.transport.telemetry.metric_table import METRICS
from tests.deploy.manifests import DEPLOY, ROOT, documents

GUIDE = (DEPLOY / "README.md").read_text()


def test_paths_and_folders_of_the_guide_exist() -> None:
    paths = set(re.findall(r"deploy/[\w./-]*\w", GUIDE)) | {"docs/metrics.md", "tests/deploy"}
    folders = re.findall(r"^\| `([\w/]+)/` \|", GUIDE, re.MULTILINE)
    assert len(paths) >= 8 and len(folders) >= 7
    for path in [*paths, *(f"deploy/{folder}" for folder in folders)]:
        assert (ROOT / path).exists(), path


def test_the_guide_tells_what_to_do_about_every_alert_and_of_no_other() -> None:
    rules = yaml.safe_load((DEPLOY / "monitoring/rules.yaml").read_text())["groups"][0]["rules"]
    assert re.findall(r"^\| (Rewardtune\w+) \|", GUIDE, re.MULTILINE) == [r["alert"] for r in rules]


def test_metrics_and_objects_that_the_guide_names_exist() -> None:
    for name in re.findall(r"rewardtune_(\w+)", GUIDE):
        assert name in METRICS
    objects = {(d["kind"].lower(), d.get("metadata", {}).get("name")) for d in documents().values()}
    for kind, name in re.findall(r"(deployment)/([\w-]+)", GUIDE):
        assert (kind, name) in objects
    for name in re.findall(r"kubectl \w+ rayjob ([\w-]+)", GUIDE):
        assert ("rayjob", name) in objects


@pytest.mark.parametrize("folder", sorted(set(re.findall(r"apply -k (deploy/[\w/]+)", GUIDE))))
def test_what_is_applied_is_a_kustomization(folder: str) -> None:
    assert (ROOT / folder / "kustomization.yaml").is_file()
