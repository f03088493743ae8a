"""README, "Your own data": a user's pictures and boxes, by the commands as they stand."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from rewardtune.cli.app import app
from rewardtune.config.config_file import load_config
from rewardtune.datasets.digits.files import write_digits
from rewardtune.datasets.digits.scenes import SceneStyle
from rewardtune.run.assembly import assemble

ROOT = Path(__file__).parents[1]
SECTION = "## Your own data"
MLE, MAP = "configs/own_boxes_mle.toml", "configs/own_boxes_map.toml"
# The only changes: what the configs ask for takes hours.
SHORTER = {
    MLE: {
        "max_boxes = 20": "max_boxes = 4",
        "input_size = 224": "input_size = 64",
        "encoder_depth = 12": "encoder_depth = 2",
        "batch_size = 16\nmicro_batch = 8": "batch_size = 4\nmicro_batch = 4",
        "num_steps = 5_000": "num_steps = 2",
        "warmup = 200": "warmup = 1",
        "log_every = 20": "log_every = 1",
    },
    MAP: {
        "max_boxes = 20": "max_boxes = 4",
        "num_samples = 8\nmicro_batch = 16": "num_samples = 2\nmicro_batch = 2",
        "batch_size = 16\nmicro_batch = 4": "batch_size = 2\nmicro_batch = 2",
        "num_steps = 400": "num_steps = 2",
        "warmup = 20\ncooldown = 200": "warmup = 1\ncooldown = 1",
    },
}


def commands() -> list[str]:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition(f"{SECTION}\n")[2].partition("\n## ")[0]
    return re.findall(r"^    \.venv/bin/rewardtune (.+)$", section, re.MULTILINE)


def bring(folder: Path) -> None:
    """What the README says that its reader has: pictures, their boxes, and the clone's configs."""
    write_digits(
        folder / "digits",
        num_scenes={"train": 12, "holdout": 4, "validation": 2},
        style=SceneStyle(size=40, max_digits=4),
    )
    for split, photos, boxes in (
        ("train", "photos/train", "train.json"),
        ("holdout", "photos/val", "val.json"),
        ("validation", "photos/new", None),
    ):
        shutil.copytree(folder / "digits/coco" / split / "images", folder / photos)
        if boxes is not None:
            shutil.copy(folder / "digits/coco" / split / "instances.json", folder / boxes)
    (folder / "configs").mkdir()
    for path, changes in SHORTER.items():
        config = (ROOT / path).read_text(encoding="utf-8")
        for before, after in changes.items():
            assert before in config
            config = config.replace(before, after)
        (folder / path).write_text(config)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """After the commands."""
    folder = tmp_path_factory.mktemp("clone")
    bring(folder)
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in commands():
            done = CliRunner().invoke(app, shlex.split(command))
            assert done.exit_code == 0, f"{command}: {done.output}"
    yield folder
    torch.set_num_threads(threads)


def test_the_section_names_both_configs_and_every_step() -> None:
    told = commands()
    assert [command.split()[0] for command in told] == [
        *("data", "data", "pretrain", "tune", "evaluate", "predict")
    ]
    assert told[2].split()[1] == MLE
    assert told[3].split()[1] == MAP


def test_tuning_starts_from_what_pretraining_left(clone: Path) -> None:
    start = load_config(ROOT / MAP).policy.checkpoint
    assert start == Path("runs/own_boxes_mle/best.safetensors")
    assert (clone / start).is_file()
    for run, mode in (("own_boxes_mle", "pretrain"), ("own_boxes_map", "tune")):
        ran = json.loads((clone / "runs" / run / "config.json").read_text())
        assert ran["mode"] == mode
        lines = (clone / "runs" / run / "log.jsonl").read_text().splitlines()
        steps = [json.loads(line) for line in lines if '"kind": "step"' in line]
        assert [step["step"] for step in steps] == [1, 2]


def test_the_tuned_policy_draws_boxes_of_the_user_s_classes(clone: Path) -> None:
    found = json.loads((clone / "boxes" / "results.json").read_text())
    assert isinstance(found, list)
    assert len(list((clone / "boxes").glob("*.png"))) == 2


def test_both_configs_agree_on_what_they_must() -> None:
    mle, tuned = load_config(ROOT / MLE), load_config(ROOT / MAP)
    assert mle.task_options["max_boxes"] == tuned.task_options["max_boxes"]
    assert mle.data.train == tuned.data.train
    assert mle.data.holdout == tuned.data.holdout


def test_its_commented_lines_start_from_a_published_vit(clone: Path, tmp_path: Path) -> None:
    config = (ROOT / MLE).read_text()
    published = tmp_path / "Ti_16.npz"
    config, num = re.subn(r"^# (encoder = )\".*\.npz\"$", rf'\1"{published}"', config, flags=re.M)
    assert num == 1
    config, num = re.subn(r"^# (learning_rate_multipliers = .*)$", r"\1", config, flags=re.M)
    assert num == 1
    for name in ("train", "holdout"):
        config = config.replace(f'"data/mine/{name}"', f'"{clone}/data/mine/{name}"')
    (tmp_path / "own.toml").write_text(config)
    told = load_config(tmp_path / "own.toml")
    sizes = told.policy
    arrays = augreg_like(
        width=sizes.width or 0,
        num_heads=sizes.num_heads or 0,
        mlp_width=sizes.mlp_width or 0,
        depth=sizes.encoder_depth or 0,
    )
    np.savez(published, **arrays)  # type: ignore[arg-type]
    policy = {n: p.detach() for n, p in assemble(told, on_cpu=True).policy.tensors().items()}
    kernel = arrays["Transformer/encoderblock_11/MlpBlock_3/Dense_0/kernel"]
    assert np.array_equal(policy["encoder.blocks.11.mlp.dense_0.kernel"].numpy(), kernel)
    (pattern, rate), *others = told.learner.optimizer.learning_rate_multipliers
    assert (rate, others) == (0.1, [])
    slow = {name for name in policy if re.fullmatch(pattern, name.replace(".", "/"))}
    assert slow == {name for name in policy if not name.startswith("decoder.")}


def augreg_like(
    *, width: int, num_heads: int, mlp_width: int, depth: int
) -> dict[str, NDArray[np.float32]]:
    """Random weights in the names and shapes of AugReg's files, 224 px and patches of 16."""
    rng = np.random.default_rng(0)
    head = (num_heads, width // num_heads)
    shapes: dict[str, tuple[int, ...]] = {
        "cls": (1, 1, width),
        "embedding/kernel": (16, 16, 3, width),
        "embedding/bias": (width,),
        "head/kernel": (width, 7),
        "head/bias": (7,),
        "Transformer/posembed_input/pos_embedding": (1, 1 + 14 * 14, width),
        "Transformer/encoder_norm/scale": (width,),
        "Transformer/encoder_norm/bias": (width,),
    }
    for layer in range(depth):
        block = f"Transformer/encoderblock_{layer}"
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            shapes |= {f"{block}/{norm}/scale": (width,), f"{block}/{norm}/bias": (width,)}
        attention = f"{block}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            shapes |= {
                f"{attention}/{part}/kernel": (width, *head),
                f"{attention}/{part}/bias": head,
            }
        shapes |= {f"{attention}/out/kernel": (*head, width), f"{attention}/out/bias": (width,)}
        mlp = f"{block}/MlpBlock_3"
        shapes |= {f"{mlp}/Dense_0/kernel": (width, mlp_width), f"{mlp}/Dense_0/bias": (mlp_width,)}
        shapes |= {f"{mlp}/Dense_1/kernel": (mlp_width, width), f"{mlp}/Dense_1/bias": (width,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
