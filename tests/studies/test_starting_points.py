"""That every variant trains, that what it changes is what it says, and that nothing else is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rewardtune.config.config_file import load_config
from rewardtune.datasets.digits.files import write_digits
from rewardtune.datasets.digits.scenes import SceneStyle
from rewardtune.datasets.frame import Framed
from rewardtune.records import View
from rewardtune.run.assembly import assemble
from studies.starting_points import CONFIG, KINDS, read, table, trained
from studies.starting_variants import RECIPE, VARIANTS, Layout, Variant

STYLE = SceneStyle(size=48, min_digits=1, max_digits=2)
BY_NAME = {variant.name: variant for variant in VARIANTS}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder, num_scenes={"train": 70, "holdout": 4, "validation": 1}, style=STYLE)
    small = {"width": 24, "mlp_width": 24, "encoder_depth": 1, "decoder_depth": 1}
    return [
        *(f"data.{split}={folder / split}" for split in ("train", "holdout")),
        *(f"policy.{key}={value}" for key, value in small.items()),
        "learner.schedule.warmup=1",
    ]


@pytest.mark.parametrize("variant", VARIANTS, ids=list(BY_NAME))
def test_a_variant_is_trained_and_measured(variant: Variant, settings: list[str]) -> None:
    short = tuple(override for override in variant.overrides if "warmup" not in override)
    brief = replace(variant, overrides=short, share_of_steps=1.0)
    record = trained(brief, seed=0, num_steps=2, every=1, settings=settings)
    assert [point["step"] for point in record["curve"]] == [1, 2]
    assert all(np.isfinite(point[kind]) for point in record["curve"] for kind in KINDS)
    # No more than a vocabulary's worth of nats: every kind is found at its own places.
    assert record["curve"][0]["class"] < 12


def test_an_edit_draws_none_of_the_runs_numbers(settings: list[str]) -> None:
    found = {}
    for name in (RECIPE, "levels_apart", "normal_linear"):
        parts = assemble(load_config(CONFIG, settings))
        before = torch.random.get_rng_state()
        BY_NAME[name].change(parts.policy, parts.task.vocabulary)
        assert torch.equal(torch.random.get_rng_state(), before)
        found[name] = {key: value.clone() for key, value in parts.policy.tensors().items()}
    differ = {
        name: {key for key in own if not torch.equal(own[key], found[RECIPE][key])}
        for name, own in found.items()
    }
    assert differ[RECIPE] == set()
    assert differ["levels_apart"] == {"decoder.token_embedding", "decoder.head.project.kernel"}
    assert "encoder.blocks.0.mlp.dense_0.kernel" in differ["normal_linear"]
    assert not any(".head." in key for key in differ["normal_linear"])


def test_a_layout_moves_tokens_within_boxes_and_back(settings: list[str]) -> None:
    parts = assemble(load_config(CONFIG, settings))
    laid = Layout(parts.task, (4, 0, 1, 2, 3, 5))
    framed = Framed.of(parts.train.example(0), View(), parts.policy.framing)
    drawn = [
        task.target_tokens(framed, rng=np.random.default_rng(0)) for task in (parts.task, laid)
    ]
    plain, moved = (tokens_T.reshape(-1, 6) for tokens_T in drawn)
    np.testing.assert_array_equal(moved, plain[:, [4, 0, 1, 2, 3, 5]])
    np.testing.assert_array_equal(laid.plain(drawn[1][None]), drawn[0][None])
    plainly, laid_out = (
        task.score(task.decode(tokens_T[None], framed), framed)
        for task, tokens_T in zip((parts.task, laid), drawn, strict=True)
    )
    assert laid_out.reward_S[0] == plainly.reward_S[0] > 0


def test_the_table_has_the_means_over_seeds(tmp_path: Path) -> None:
    point = {"step": 9, "loss": 1.0, **dict.fromkeys(KINDS, 2.0), "map": 0.1, "ar100": 0.2}
    records = [
        {"variant": RECIPE, "seed": seed, "steps": 9, "curve": [{**point, "map": value}]}
        for seed, value in enumerate((0.1, 0.3))
    ]
    shown = table(records)
    cells = [next(iter(column.cells)) for column in shown.columns]
    assert cells[:3] == ["nothing", "9", "2"] and cells[-2:] == ["0.200", "0.200"]
    assert read(tmp_path / "none.jsonl") == []
