"""The wheel, unpacked beside the installed dependencies, in an empty folder without the clone."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from rewardtune.demo.table import DEMOS

ROOT = Path(__file__).resolve().parents[1]
NAMES = {"rewardtune", "sampler", "learner", "reward_workers", "protos"}
SHIPPED = "rewardtune/shipped_files"

# Without `site`: an editable install of the clone is on the path by a .pth file.
PROGRAM = """
import runpy, sys
wheel, clone, *installed = sys.argv[1:sys.argv.index("--")]
sys.path[:0] = [wheel]
sys.path += installed
assert clone not in sys.path, sys.path
import rewardtune
assert rewardtune.__file__.startswith(wheel), rewardtune.__file__
sys.argv = ["rewardtune", *sys.argv[sys.argv.index("--") + 1:]]
runpy.run_module("rewardtune", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def rewardtune(unpacked: Path, folder: Path, *arguments: str) -> str:
    """What the wheel's command prints."""
    installed = [path for path in sys.path if Path(path).name == "site-packages"]
    paths = [str(unpacked), str(ROOT), *installed]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PROGRAM, *paths, "--", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_puts_five_names_into_site_packages(wheel: Path) -> None:
    names = {Path(name).parts[0] for name in zipfile.ZipFile(wheel).namelist()}
    (metadata,) = names - NAMES
    assert metadata.endswith(".dist-info") and names > NAMES
    entry_points = zipfile.ZipFile(wheel).read(f"{metadata}/entry_points.txt").decode()
    assert "rewardtune = rewardtune.cli.app:app" in entry_points


def test_the_wheel_holds_every_config_and_shipped_policy(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith(SHIPPED)}
    tracked = [*ROOT.glob("configs/**/*.toml"), *ROOT.glob("pretrained/*")]
    assert held == {f"{SHIPPED}/{path.relative_to(ROOT)}" for path in tracked}
    assert {f"{SHIPPED}/{demo.config}" for demo in DEMOS.values()} <= held


def test_in_an_empty_folder_the_wheel_tunes_the_demos_policy_and_scores_a_results_file(
    unpacked: Path, tmp_path: Path
) -> None:
    scenes = ["--scenes-train", "16", "--scenes-holdout", "4", "--scenes-validation", "4"]
    rewardtune(unpacked, tmp_path, "data", "digits", "data/digits", *scenes)
    changes = [
        *("learner.num_steps=2", "learner.schedule=none"),  # a warm-up of 20 steps and more
        *("learner.batch_size=8", "sampler.micro_batch=8"),
    ]
    settings = [word for change in changes for word in ("--set", change)]
    told = rewardtune(unpacked, tmp_path, "tune", "digits_detection_map", "--local", *settings)
    assert json.loads(told)["policy"] == "runs/digits_detection_map/best.safetensors"
    assert (tmp_path / "runs/digits_detection_map/policy.safetensors").is_file()

    truth = tmp_path / "data/digits/coco/validation/instances.json"
    keys = ("image_id", "category_id", "bbox")
    results = [
        {**{key: each[key] for key in keys}, "score": 1.0}
        for each in json.loads(truth.read_text())["annotations"]
    ]
    (tmp_path / "results.json").write_text(json.dumps(results))
    told = rewardtune(
        unpacked, tmp_path, "score", "detection", "results.json", "--annotations", str(truth)
    )
    assert json.loads(told)["AP"] == pytest.approx(1.0)
