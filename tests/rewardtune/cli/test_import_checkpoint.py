"""``rewardtune import-checkpoint`` as people call it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from rewardtune.cli.app import app
from rewardtune.datasets.shards.dataset import open_dataset
from rewardtune.policies.kinds.big_vision import to_published
from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from rewardtune.policies.policy_file import load_policy
from rewardtune.tasks.panoptic import TASK
from rewardtune.tasks.uvim.big_vision import import_stage_one
from rewardtune.tasks.uvim.stage_one_file import load_stage_one
from tests.rewardtune.tiny_stage_one import write_panoptic_digits

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
RUNNER = CliRunner()


def run(*arguments: object) -> str:
    result = RUNNER.invoke(app, ["import-checkpoint", *map(str, arguments)])
    return f"{result.exit_code} {result.output}"


def test_a_stage_one_is_read_as_it_looks(tmp_path: Path) -> None:
    output = tmp_path / "one.safetensors"
    said = run(FIXTURES / "stage1_color.npz", "--output", output, "--code-length", 4)
    assert said.startswith("0 ") and "stage one" in said
    loaded = load_stage_one(output)
    expected = import_stage_one(FIXTURES / "stage1_color.npz", code_length=4).state_dict()
    for name, tensor in loaded.network.state_dict().items():
        assert torch.equal(tensor, expected[name])
    assert loaded.provenance == {"imported_from": "stage1_color.npz"}


def test_what_was_asked_for_and_is_not_there_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "x.safetensors"
    said = run(FIXTURES / "stage1_color.npz", "--output", output, "--stage", "two")
    assert said.startswith("2 ") and "looks like stage 'one', not 'two'" in said
    assert "needs the task" in run(FIXTURES / "vtt.npz", "--output", output)
    said = run(FIXTURES / "resize.npz", "--output", output)
    assert "is no network that is known here" in said
    assert not output.exists()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Digit scenes, and a stage I for their classes."""
    from rewardtune.run.log import CombinedLog
    from rewardtune.stage_one.training import train_stage_one
    from tests.rewardtune.tiny_stage_one import tiny_stage_one

    folder = tmp_path_factory.mktemp("import")
    data = write_panoptic_digits(folder / "data")
    config = tiny_stage_one(data, folder / "run", training={"num_steps": 1})
    return data, train_stage_one(config, CombinedLog([])).path


def published(policy: EncoderDecoder) -> dict[str, NDArray[Any]]:
    return {to_published(n): p.detach().numpy() for n, p in policy.named_parameters()}


def test_a_stage_two_becomes_a_policy_of_its_task(
    prepared: tuple[Path, Path], tmp_path: Path
) -> None:
    data, stage_one = prepared
    config = EncoderDecoderConfig(
        input_size=32,
        patch_size=8,
        width=24,
        num_heads=2,
        mlp_width=32,
        encoder_depth=2,
        decoder_depth=1,
        vocab_size=17,
        sequence_length=4,
    )
    arrays = published(EncoderDecoder(config))
    np.savez(tmp_path / "two.npz", **arrays)  # type: ignore[arg-type]
    output = tmp_path / "two.safetensors"
    task = ["--task", "panoptic", "--option", f"stage_one={stage_one}", "--data", data / "train"]
    said = run(tmp_path / "two.npz", "--output", output, *task)
    assert said.startswith("0 "), said
    loaded = load_policy(output)
    assert loaded.policy.config == config
    categories = open_dataset(data / "train").categories
    needed = TASK({"stage_one": str(stage_one)}, categories=categories).vocabulary.describe()
    assert loaded.vocabulary == needed
    assert loaded.provenance["keep_aspect"] is False
    assert isinstance(loaded.policy, EncoderDecoder)
    for name, array in published(loaded.policy).items():
        np.testing.assert_array_equal(array, arrays[name])
    del arrays["decoder/LayerNorm/bias"]
    arrays["surplus"] = np.zeros(1, np.float32)
    np.savez(tmp_path / "odd.npz", **arrays)  # type: ignore[arg-type]
    said = run(tmp_path / "odd.npz", "--output", output, *task)
    assert said.startswith("2 ")
    assert "1 missing: decoder/LayerNorm/bias; 1 unexpected: surplus" in said


def test_a_plain_vit_becomes_the_encoder_of_a_policy(
    prepared: tuple[Path, Path], tmp_path: Path
) -> None:
    data, stage_one = prepared
    output = tmp_path / "vit.safetensors"
    said = run(
        FIXTURES / "vit_augreg_style_ckpt.npz",
        "--output",
        output,
        "--task",
        "panoptic",
        "--option",
        f"stage_one={stage_one}",
        "--data",
        data / "train",
        "--input-size",
        32,
        "--decoder-depth",
        2,
    )
    assert said.startswith("0 ") and "stage encoder" in said
    policy = load_policy(output).policy
    assert isinstance(policy, EncoderDecoder)
    assert (policy.config.input_size, policy.config.decoder_depth) == (32, 2)
    assert policy.vocab_size == 17
