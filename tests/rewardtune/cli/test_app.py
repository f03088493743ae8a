"""The command line as a user meets it, on a detector that runs in a second."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from rewardtune.cli.app import STOPPED
from rewardtune.cli.ending import BAD_INPUT
from rewardtune.run.log import LOG_NAME, read_run_log
from rewardtune.run.result import RunResult
from tests.rewardtune.command_line import refused, run

ROOT = Path(__file__).parents[3]
COCO_TINY = ROOT.parent / "shared" / "data" / "coco_tiny"

CONFIG = """
task = "detection"
mode = "{mode}"
task_options = {{ max_boxes = 3 }}
data = {{ train = "{data}/train", holdout = "{data}/holdout" }}
compute = {{ device = "cpu" }}
sampler = {{ num_samples = 2, micro_batch = 4 }}

[policy]
{policy}

[learner]
batch_size = 8
micro_batch = 8
num_steps = 3
optimizer = {{ kind = "adamw", learning_rate = 1e-3 }}
"""
SIZES = """
input_size = 32
patch_size = 8
width = 32
num_heads = 2
mlp_width = 48
encoder_depth = 1
decoder_depth = 1
"""


@pytest.fixture(scope="module")
def mle_config(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("configs") / "mle.toml"
    path.write_text(CONFIG.format(mode="pretrain", data=data, policy=SIZES))
    return path


@pytest.fixture(scope="module")
def policy(mle_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "mle"
    result = run("pretrain", mle_config, "--set", f"operations.directory={directory}")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert {"policy", "map", "reward"} <= printed.keys()
    assert "pretrain 3/3 · loss" in result.stderr
    return Path(printed["policy"])


def test_version_and_help_need_nothing_heavy() -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from rewardtune.cli.app import app\n"
        "for arguments in (['--version'], ['--help'], ['data', '--help']):\n"
        "    assert CliRunner().invoke(app, arguments).exit_code == 0\n"
        "print({'torch', 'sklearn', 'matplotlib', 'pyarrow', 'numba'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "set()\n", done.stderr


def test_idle_threads_are_told_to_sleep_before_torch_is_imported() -> None:
    program = "import os, rewardtune.cli.app; print(os.environ['OMP_WAIT_POLICY'])"
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "passive\n", done.stderr


def test_tune_writes_a_policy_and_its_log(policy: Path, data: Path, tmp_path: Path) -> None:
    config = tmp_path / "tiny_tune.toml"
    config.write_text(CONFIG.format(mode="tune", data=data, policy=f'checkpoint = "{policy}"'))
    directory = tmp_path / "run"
    result = run("tune", config, "--local", "--set", f"operations.directory={directory}")
    assert result.exit_code == 0, result.output
    assert Path(json.loads(result.stdout)["policy"]).is_file()
    records = read_run_log(directory / LOG_NAME)
    assert [record["step"] for record in records.steps] == [1, 2, 3]
    assert {"reward", "seconds_sample", "seconds_learn"} <= records.steps[0].keys()
    assert [record["step"] for record in records.evaluations] == [0, 3]
    assert "start it by rewardtune tune" in refused("pretrain", config)


def test_ray_and_one_process_exclude_each_other(policy: Path, data: Path, tmp_path: Path) -> None:
    config = tmp_path / "tiny_tune.toml"
    config.write_text(CONFIG.format(mode="tune", data=data, policy=f'checkpoint = "{policy}"'))
    assert "--local does without" in refused("tune", config, "--local", "--address", "auto")


def test_a_run_that_a_signal_stopped_says_how_to_go_on(
    mle_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = RunResult(
        directory=tmp_path, policy_path=tmp_path / "policy", metrics={}, is_finished=False
    )
    monkeypatch.setattr("rewardtune.run.local.pretrain", lambda *_, **__: stopped)
    result = run("pretrain", mle_config)
    assert result.exit_code == STOPPED
    assert "the same command continues" in result.stderr


def test_dry_run_prints_sizes_and_makes_nothing(mle_config: Path, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    result = run("pretrain", mle_config, "--dry-run", "--set", f"operations.directory={directory}")
    assert result.exit_code == 0, result.output
    sizes = json.loads(result.stdout)
    assert sizes["images_total"] == 24
    assert sizes["trained_tokens_per_step"] == 8 * 3 * 6
    assert sizes["epochs"] == 1.0
    assert not directory.exists()
    bogus = run("pretrain", mle_config, "--dry-run", "--set", "evaluation.score_rule=bogus")
    assert (bogus.exit_code, bogus.stdout) == (2, "")
    assert "score_rule 'bogus' is unknown to task 'detection': choose from" in bogus.stderr
    elsewhere = run("pretrain", mle_config, "--dry-run", "--set", f"data.train={tmp_path}/none")
    assert elsewhere.exit_code == 0
    assert "trained_tokens_per_step" not in json.loads(elsewhere.stdout)
    assert "none does not exist" in elsewhere.stderr


def test_evaluate_prints_metrics_and_writes_official_results(
    policy: Path, data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "new" / "results.json"
    arguments = ["--option", "max_boxes=3", "--temperature", 1, "--output", output]
    result = run("evaluate", policy, "--data", data / "validation", *arguments)
    assert result.exit_code == 0, result.output
    assert {"map", "ar100", "reward", "boxes_per_image"} <= json.loads(result.stdout).keys()
    records = json.loads(output.read_text())
    assert records and set(records[0]) == {"image_id", "category_id", "bbox", "score"}
    fewer = run("evaluate", policy, "--data", data / "validation", "--num-examples", 2, *arguments)
    assert fewer.exit_code == 0
    assert {record["image_id"] for record in json.loads(output.read_text())} <= {1, 2}


def test_predict_draws_beside_the_annotation(policy: Path, data: Path, tmp_path: Path) -> None:
    arguments = ["--option", "max_boxes=3", "--temperature", 1, "--num", 2, "--score-rule", "p2"]
    result = run("predict", policy, "--data", data / "validation", "--output", tmp_path, *arguments)
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {
        "000000.png",
        "000001.png",
        "results.json",
    }
    with Image.open(tmp_path / "000000.png") as picture:
        assert picture.width > 1.9 * 384


def test_predict_on_plain_pictures_names_what_it_numbers(
    policy: Path, data: Path, tmp_path: Path
) -> None:
    pictures = data / "coco" / "validation" / "images"
    arguments = ["--option", "max_boxes=3", "--temperature", 1]
    result = run("predict", policy, "--images", pictures, "--output", tmp_path, *arguments)
    assert result.exit_code == 0, result.output
    assert len(list(tmp_path.glob("*.png"))) == 8
    records = json.loads((tmp_path / "results.json").read_text())
    assert all(record["file_name"].endswith(".png") for record in records)
    assert {record["category_name"] for record in records} <= {"zero", "one", "two", "three"} | {
        "four", "five", "six", "seven", "eight", "nine",
    }  # fmt: skip


def test_pictures_of_one_name_are_both_drawn(policy: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "a.png"):
        Image.new("RGB", (40, 30)).save(tmp_path / "in" / name)
    arguments = ["--images", tmp_path / "in", "--output", tmp_path / "out"]
    result = run("predict", policy, *arguments, "--option", "max_boxes=3")
    assert result.exit_code == 0, result.output
    drawn = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert drawn == {"a.png", "a-2.png"}


def test_photographs_are_converted_and_described(tmp_path: Path) -> None:
    if not COCO_TINY.is_dir():
        pytest.skip(f"the photographs of {COCO_TINY} are not here")
    converted = tmp_path / "coco"
    result = run(
        *("data", "coco", "--images", COCO_TINY / "images", "--output", converted),
        *("--instances", COCO_TINY / "instances.json", "--captions", COCO_TINY / "captions.json"),
    )
    assert result.exit_code == 0, result.output
    assert "20 examples, digest" in result.stdout
    info = run("data", "info", converted, "--verify")
    assert info.exit_code == 0
    assert "person" in info.stdout and "examples    20" in info.stdout
    assert "already holds a data set" in refused(
        *("data", "coco", "--images", COCO_TINY / "images", "--output", converted),
        *("--instances", COCO_TINY / "instances.json"),
    )


def test_what_is_broken_is_skipped_on_request_and_listed(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "1.png")
    images = [{"id": n, "file_name": f"{n}.png", "height": 8, "width": 8} for n in (1, 2)]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    arguments = ["--images", tmp_path / "images", "--instances", tmp_path / "instances.json"]
    stopped = run("data", "coco", *arguments, "--output", tmp_path / "out")
    assert stopped.exit_code == BAD_INPUT and "2.png" in stopped.stderr
    skipped = run("data", "coco", *arguments, "--output", tmp_path / "out", "--skip-broken")
    assert skipped.exit_code == 0
    assert "skipped:" in skipped.stderr and "1 examples" in skipped.stdout


def test_digits_are_written_once(tmp_path: Path) -> None:
    arguments = ["data", "digits", tmp_path / "digits", "--scenes-train", 2]
    arguments += ["--scenes-holdout", 0, "--scenes-validation", 0]
    assert "written" in run(*arguments).stdout
    assert "there already" in run(*arguments).stdout
    assert "seed = 0 (not 1)" in refused(*arguments, "--seed", 1)


def test_bad_input_is_one_line(policy: Path, mle_config: Path, data: Path, tmp_path: Path) -> None:
    assert "unknown key learner.stepz" in refused(
        "pretrain", mle_config, "--set", "learner.stepz=3"
    )
    assert "start it by rewardtune pretrain" in refused("tune", mle_config)
    assert "cannot be read" in refused("tune", tmp_path / "none.toml")
    assert "none.safetensors not found" in refused(
        "evaluate", tmp_path / "none.safetensors", "--data", data / "train"
    )
    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes(policy.read_bytes()[:-100])
    assert "truncated" in refused("evaluate", truncated, "--data", data / "train")
    assert "does not exist" in refused("evaluate", policy, "--data", tmp_path / "none")
    evaluate = ["evaluate", policy, "--data", data / "train", "--num-examples", 1]
    assert "sequence_length is 18 instead of 24" in refused(*evaluate, "--option", "max_boxes=4")
    evaluate += ["--option", "max_boxes=3"]
    assert "score_rule 'best' is unknown" in refused(*evaluate, "--score-rule", "best")
    assert "unknown detection option 'size'" in refused(*evaluate, "--option", "size=3")
    assert "write it as key=value" in refused(*evaluate, "--option", "max_boxes")
    assert "task 'x' is neither a folder" in refused(*evaluate, "--task", "x")
    assert "temperature must be positive" in refused(*evaluate, "--temperature", 0)
    assert "either --data or --images" in refused("predict", policy, "--output", tmp_path)


def test_a_bug_says_how_to_find_it(mle_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr("rewardtune.run.local.pretrain", breaks)
    result = run("pretrain", mle_config)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[0] == "error: shapes differ"
    assert "REWARDTUNE_TRACEBACK=1" in result.stderr
    monkeypatch.setenv("REWARDTUNE_TRACEBACK", "1")
    assert isinstance(run("pretrain", mle_config).exception, RuntimeError)
