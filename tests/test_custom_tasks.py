"""docs/custom_tasks.md: a task from outside, by the code and the commands as they stand there."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.rewardtune.tiny_run import weight_digest
from tests.tutorial import commands, do, of_fewer_scenes, printed, write_configs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "custom_tasks.md").read_text(encoding="utf-8")
PACKAGE = "examples/tasks/keypoints"
# What takes long on whatever runs this test; everything else is as printed.
SMALLER = {
    "keypoints_mle.toml": {"num_steps = 2_000": "num_steps = 40", "every_steps = 500": ""},
    "keypoints_oks.toml": {
        "num_steps = 300": "num_steps = 3",
        "warmup = 20": "warmup = 1",
        "cooldown = 200": "cooldown = 1",
        "batch_size = 64": "batch_size = 32",
        "every_steps = 50": "",
        "log_every = 10": "log_every = 1",
    },
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of nothing but what the page begins with; its code, configs, data, and likelihood."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "pretrained").symlink_to(ROOT / "pretrained")
    for name, content in printed(PAGE, "python").items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    write_configs(folder, PAGE, SMALLER)
    look, likelihood, *_ = commands(PAGE)
    do(folder, [of_fewer_scenes(look), likelihood])
    return folder


@pytest.fixture(scope="module")
def tuned(clone: Path) -> Path:
    """After tuning, measuring and drawing too."""
    variable, _, _ = commands(PAGE)[0].partition("\n")
    do(clone, [f"{variable}\n", commands(PAGE)[2]])
    return clone


@pytest.fixture(scope="module")
def on_ray(tuned: Path) -> Path:
    """After the last command."""
    variable, _, _ = commands(PAGE)[0].partition("\n")
    (last,) = commands(PAGE)[3:]
    do(tuned, [f"{variable}\n", last])
    return tuned


def lines(run: Path, kind: str) -> list[dict[str, Any]]:
    told = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in told if line["kind"] == kind]


def test_the_page_prints_the_package_and_nothing_else() -> None:
    files = {f"{PACKAGE}/{path.name}": path.read_text() for path in (ROOT / PACKAGE).glob("*.py")}
    assert printed(PAGE, "python") == files
    assert printed(PAGE, "toml").keys() == SMALLER.keys()
    assert len(re.findall(r"```(?:python|toml)", PAGE)) == len(files) + len(SMALLER)


def test_likelihood_is_learned_and_measured(clone: Path) -> None:
    run = clone / "runs/keypoints_mle"
    first, last = lines(run, "evaluation")
    assert {"ap", "ap50", "ar", "objects_per_image", "reward"} <= last.keys()
    # It knows nothing of where a digit is yet, but that there is one, and of which shape.
    assert first["objects_per_image"] == 0 and last["objects_per_image"] > 0.5


def test_tuning_is_rewarded_by_the_task(clone: Path, tuned: Path) -> None:
    run = tuned / "runs/keypoints_oks"
    steps = lines(run, "step")
    assert [step["step"] for step in steps] == [1, 2, 3]
    for step in steps:
        parts = step["reward_similarity"] + step["reward_false_objects"]
        assert step["reward"] == pytest.approx(parts)
        assert step["reward_objects"] > 0
    assert weight_digest(run / "policy.safetensors") != weight_digest(
        clone / "runs/keypoints_mle/policy.safetensors"
    )


def test_predictions_are_coco_s_and_drawn(tuned: Path) -> None:
    folder = tuned / "keypoint_pictures"
    pictures = sorted(folder.glob("*.png"))
    assert len(pictures) == 8
    assert all(np.asarray(Image.open(picture)).std() > 0 for picture in pictures)
    for record in json.loads((folder / "results.json").read_text()):
        assert record.keys() == {"image_id", "category_id", "keypoints", "score"}
        assert len(record["keypoints"]) == 12 and 0 < record["score"] <= 1


def test_a_results_file_scores_as_the_run_evaluates_its_policy(tuned: Path) -> None:
    variable, _, _ = commands(PAGE)[0].partition("\n")
    score = commands(PAGE)[2].strip().rpartition("\n")[2]
    assert "rewardtune score keypoints" in score
    told = json.loads(do(tuned, [f"{variable}\n", score]))
    last = lines(tuned / "runs/keypoints_oks", "evaluation")[-1]
    assert told.keys() == {"ap", "ap50", "ap75", "ar", "ar50", "ar75"}
    assert told == pytest.approx({name: last[name] for name in told})


def test_processes_of_a_cluster_have_the_module_and_end_with_the_same_weights(on_ray: Path) -> None:
    local, ray = on_ray / "runs/keypoints_oks", on_ray / "runs/keypoints_on_ray"
    assert weight_digest(local / "policy.safetensors") == weight_digest(ray / "policy.safetensors")
    copied = {path.name for path in (ray / "code/keypoints").glob("*.py")}
    assert copied == {path.name for path in (ROOT / PACKAGE).glob("*.py")}
