"""Training a stage I: it learns, it goes on where it stood, and it refuses what cannot be run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from learner.checkpoint import load_checkpoint
from learner.not_finite import NotFinite
from rewardtune.config.run_config import ConfigError
from rewardtune.datasets.shards.dataset import open_dataset
from rewardtune.run.log import CombinedLog
from rewardtune.stage_one.config import is_stage_one, load_stage_one_config
from rewardtune.stage_one.evaluation import reconstruction_metrics
from rewardtune.stage_one.training import StageOneTrainer, train_stage_one
from rewardtune.tasks.uvim.stage_one_file import load_stage_one
from tests.rewardtune.tiny_stage_one import tiny_stage_one, write_panoptic_digits

SILENT = CombinedLog([])
CONFIGS = Path(__file__).resolve().parents[3] / "configs"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_panoptic_digits(tmp_path_factory.mktemp("panoptic"))


@pytest.mark.parametrize("task", ["panoptic", "colorization"])
def test_a_run_writes_a_stage_one_that_loads_and_its_figures(
    data: Path, tmp_path: Path, task: str
) -> None:
    result = train_stage_one(tiny_stage_one(data, tmp_path / "run", task=task), SILENT)
    assert result.is_finished
    loaded = load_stage_one(result.path)
    assert loaded.network.config.kind == task
    holdout = open_dataset(data / "holdout")
    if task == "panoptic":
        assert loaded.network.config.outputs == {"semantics": 15, "instances": 8}
        assert loaded.class_names == tuple(c.name for c in holdout.categories)
    metrics = reconstruction_metrics(loaded.network, task, holdout, indices=range(6))
    assert metrics == result.metrics
    assert next(iter(metrics)) == {"panoptic": "pq", "colorization": "psnr"}[task]


def test_the_loss_falls(data: Path, tmp_path: Path) -> None:
    import torch

    config = tiny_stage_one(data, tmp_path / "run")
    trainer = StageOneTrainer(config, open_dataset(data / "train"), device=torch.device("cpu"))
    losses = [trainer.step()["loss"] for _ in range(25)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_a_run_taken_up_again_ends_with_the_same_bytes(data: Path, tmp_path: Path) -> None:
    whole = train_stage_one(tiny_stage_one(data, tmp_path / "whole"), SILENT)
    part = tiny_stage_one(data, tmp_path / "part")
    train_stage_one(part, SILENT)
    # As if it had been killed after step 2.
    shutil.rmtree(tmp_path / "part" / "checkpoints" / "checkpoint-00000004")
    (tmp_path / "part" / "stage_one.safetensors").unlink()
    again = train_stage_one(part, SILENT)
    for name in ("stage_one.safetensors", "best.safetensors"):
        assert (whole.directory / name).read_bytes() == (again.directory / name).read_bytes()


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (1e30, r"step 1: the norm of the update is not finite \(inf\): .* checkpoint is step 0: "),
        # Finite weights, and nothing finite to be computed from them.
        (1e16, r"step [23]: the (loss|gradient norm) is not finite .* checkpoint is step [12]: "),
    ],
)
def test_a_run_that_leaves_the_numbers_ends_with_the_codebook_and_weights_before_it(
    data: Path, tmp_path: Path, rate: float, said: str
) -> None:
    import torch

    config = tiny_stage_one(
        data, tmp_path, training={"optimizer": {"kind": "adamw", "learning_rate": rate}}
    )
    with pytest.raises(NotFinite, match=said):
        train_stage_one(config, SILENT)
    (path,) = (tmp_path / "checkpoints").iterdir()
    found = load_checkpoint(path)
    trainer = StageOneTrainer(config, open_dataset(data / "train"), device=torch.device("cpu"))
    while trainer.num_steps < found.step:
        trainer.step()
    for name, tensors in trainer.state().items():
        assert all(torch.equal(found.files[name][key], t) for key, t in tensors.items())


def test_another_identity_is_refused_unless_forked(data: Path, tmp_path: Path) -> None:
    train_stage_one(tiny_stage_one(data, tmp_path), SILENT)
    other = tiny_stage_one(data, tmp_path, seed=4)
    with pytest.raises(ConfigError, match="holds another run"):
        train_stage_one(other, SILENT)
    assert train_stage_one(other, SILENT, fork=True).is_finished


def test_micro_batches_only_change_rounding(data: Path, tmp_path: Path) -> None:
    import torch

    train = open_dataset(data / "train")
    states = []
    for micro_batch in (8, 2):
        config = tiny_stage_one(data, tmp_path, training={"micro_batch": micro_batch})
        trainer = StageOneTrainer(config, train, device=torch.device("cpu"))
        trainer.step()
        states.append(trainer.network.state_dict())
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("**/*stage_one.toml")), ids=lambda p: p.stem)
def test_every_config_of_a_stage_one_is_valid(path: Path) -> None:
    assert is_stage_one(path)
    config = load_stage_one_config(path)
    config.network.sizes(config.task, 14)
    lines = path.read_text().splitlines()
    opening = [line for line in lines[: lines.index("")] if line.startswith("#")]
    for field in ("command", "hardware", "expected", "reached"):
        assert sum(line.startswith(f"# {field}:") for line in opening) == 1
    assert path.name in "".join(opening)


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("training.micro_batch=7", "batch_size = 64 is not a multiple"),
        ("network.depth=7", "unknown key network.depth"),
        ("training.num_steps=0", "training.num_steps"),
    ],
)
def test_a_config_that_cannot_be_run_is_refused_in_one_line(override: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as raised:
        load_stage_one_config(CONFIGS / "digits_panoptic_stage_one.toml", [override])
    assert "\n" not in str(raised.value)
