"""Where configs and policies that come with the package are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewardtune.cluster.job_bundle import RUN_FILE, entrypoint, write_bundle
from rewardtune.config.config_file import load_config
from rewardtune.config.run_config import ConfigError
from rewardtune.policies.policy_file import PolicyFileError, load_policy, policy_digest
from rewardtune.shipped import ROOT, find_config, find_file, shipped_file
from rewardtune.stage_one.config import is_stage_one, load_stage_one_config
from rewardtune.sweep.config import load_sweep
from rewardtune.tasks.task import find_task

CONFIG = Path("configs/digits_detection_map.toml")
POLICY = Path("pretrained/digits_detection_mle.safetensors")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a user, with nothing of ours in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_shipped_file_is_found_from_any_folder() -> None:
    assert find_file(POLICY) == ROOT / POLICY
    assert find_config(CONFIG) == ROOT / CONFIG


def test_the_users_own_file_of_that_name_comes_first() -> None:
    put(POLICY)
    put(CONFIG)
    assert find_file(POLICY) == POLICY
    assert find_config(CONFIG) == find_config(Path(CONFIG.stem)) == CONFIG


def test_a_config_is_also_found_by_its_bare_name() -> None:
    assert find_config(Path("digits_detection_map")) == ROOT / CONFIG
    put(Path("digits_detection_map"))
    assert find_config(Path("digits_detection_map")) == Path("digits_detection_map")


@pytest.mark.parametrize(
    "path", [Path("pretrained/none"), Path("data/digits"), Path("configs"), Path("pyproject.toml")]
)
def test_what_does_not_come_with_the_package_stays_as_it_is_named(path: Path) -> None:
    assert find_file(path) == find_config(path) == path
    assert shipped_file(path) is None


def test_an_absolute_path_is_never_looked_for_elsewhere(folder: Path) -> None:
    assert find_file(folder / POLICY) == folder / POLICY
    assert shipped_file(ROOT / POLICY) is None


def test_a_config_that_is_nowhere_is_told_with_the_places_looked_in(folder: Path) -> None:
    with pytest.raises(ConfigError, match="config my_run cannot be read: No such file") as error:
        load_config(Path("my_run"))
    assert str(folder) in str(error.value) and str(ROOT / "configs") in str(error.value)


def test_a_run_of_a_shipped_config_has_a_directory_of_its_name_here() -> None:
    config = load_config(Path("digits_detection_map"))
    assert config == load_config(CONFIG)
    assert config.operations.directory == Path("runs/digits_detection_map")
    assert config.policy.checkpoint == POLICY


def test_sweeps_and_stage_one_runs_are_found_too() -> None:
    assert load_sweep(Path("configs/sweeps/detection_depth.toml")).settings.config == CONFIG
    name = Path("digits_panoptic_stage_one")
    assert is_stage_one(name)
    assert load_stage_one_config(name).operations.directory == Path("runs") / name


def test_a_policy_is_read_from_there_and_known_by_its_bytes() -> None:
    loaded = load_policy(POLICY)
    assert loaded.vocabulary["task"] == "detection"
    assert policy_digest(POLICY) == policy_digest(ROOT / POLICY)
    with pytest.raises(PolicyFileError, match="pretrained/none not found"):
        load_policy(Path("pretrained/none"))


def test_files_that_task_options_name_are_found_there(folder: Path) -> None:
    name = "pretrained/digits_panoptic_stage_one.safetensors"
    options = {"stage_one": name}
    assert find_task("panoptic", options).files == {"stage_one": ROOT / name}
    assert find_task("panoptic", options, artefacts=folder).files == {"stage_one": ROOT / name}
    own = put(folder / "copies" / name)
    found = find_task("panoptic", options, artefacts=folder / "copies")
    assert found.files == {"stage_one": own}


def test_a_file_that_is_nowhere_is_told_with_the_places_looked_in() -> None:
    with pytest.raises(ValueError, match=r"looked for pretrained/none\): copy it here"):
        find_task("panoptic", {"stage_one": "pretrained/none"})


def test_a_job_takes_shipped_files_from_the_clusters_own_installation(folder: Path) -> None:
    config = load_config(Path("digits_detection_map"))
    write_bundle(folder, Path("digits_detection_map"), config, working_dir=None)
    assert (folder / RUN_FILE).read_bytes() == (ROOT / CONFIG).read_bytes()
    assert "policy.checkpoint" not in entrypoint(config, [])
    put(POLICY)
    assert f'policy.checkpoint="{folder / POLICY}"' in entrypoint(config, [])
