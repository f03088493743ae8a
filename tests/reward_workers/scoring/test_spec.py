from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from reward_workers.scoring.digest import ScorerSettings
from reward_workers.scoring.score import score_group
from reward_workers.scoring.spec import MAX_SPEC_BYTES, ScoringSpec, make_golden
from rewardtune.datasets.frame import Square
from rewardtune.datasets.shards.dataset import open_dataset
from rewardtune.tasks.task import load_task
from tests.reward_workers.scoring_run import by_token_spec, spec_of, write_tiny_data
from tests.rewardtune.tiny_run import write_tiny_digits


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_digits(tmp_path_factory.mktemp("digits")) / "train"


def test_a_spec_comes_back_from_its_bytes_to_the_last_bit_of_its_rewards(digits: Path) -> None:
    spec = spec_of(digits, "detection", {"max_boxes": 3}, input_size=32)
    assert ScoringSpec.from_bytes(spec.to_bytes()) == spec
    assert any(reward != round(reward) for each in spec.golden for reward in each.rewards)


def test_a_spec_made_twice_has_the_same_bytes(digits: Path) -> None:
    first, second = (
        spec_of(digits, "detection", {"max_boxes": 3}, input_size=32) for _ in range(2)
    )
    assert first.to_bytes() == second.to_bytes()


def test_golden_rewards_are_what_the_task_gives_and_tell_good_from_damaged(digits: Path) -> None:
    dataset = open_dataset(digits)
    task = load_task("detection", {"max_boxes": 3}, categories=dataset.categories)
    golden = make_golden(task, dataset, num=4, framing=Square(side=32))
    assert [each.example for each in golden] == [0, 1, 2, 3]
    assert [each.view.flip for each in golden] == [False, True, False, True]
    for each in golden:
        group = each.group()
        assert group.tokens_ST.shape == (2, task.vocabulary.max_tokens)
        assert group.tokens_ST.dtype == np.int32
        score = score_group(group, task=task, dataset=dataset, framing=Square(side=32)).score
        assert tuple(score.reward_S.tolist()) == each.rewards
    assert sum(each.rewards[0] for each in golden) > sum(each.rewards[1] for each in golden)


def test_a_small_data_set_has_fewer_golden_examples(tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data")
    dataset = open_dataset(data)
    task = load_task("by_token", {}, categories=dataset.categories)
    assert len(make_golden(task, dataset, num=9, framing=Square(side=8))) == 4


def test_scorer_settings_are_part_of_the_spec_and_its_digest(tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data")
    one, two = (spec_of(data, "by_token", {}, threads=threads) for threads in (1, 2))
    assert two.scorer == ScorerSettings(threads=2)
    assert one.reward_digest != two.reward_digest


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "the whole: Invalid JSON"),
        (b"\xff\xfe", "Invalid JSON"),
        (b"{}", "run: Field required"),
        (b" " * (MAX_SPEC_BYTES + 1), "refused a scoring spec of 1048577 bytes"),
    ],
)
def test_bytes_that_are_no_spec_are_refused_in_one_line(data: bytes, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        ScoringSpec.from_bytes(data)
    assert "\n" not in str(caught.value)


def test_a_spec_of_a_later_version_is_refused_by_the_name_of_what_is_new(tmp_path: Path) -> None:
    spec = by_token_spec(write_tiny_data(tmp_path / "data"))
    later = {**json.loads(spec.to_bytes()), "colour": "red"}
    with pytest.raises(ValueError, match="colour.*start workers of the same version"):
        ScoringSpec.from_bytes(json.dumps(later).encode())


def test_a_spec_too_large_for_the_queue_is_not_written(tmp_path: Path) -> None:
    spec = by_token_spec(write_tiny_data(tmp_path / "data"))
    golden = spec.golden[0].model_copy(update={"tokens": ((1,) * MAX_SPEC_BYTES,)})
    with pytest.raises(ValueError, match="take fewer than 1 golden examples"):
        spec.model_copy(update={"golden": (golden,)}).to_bytes()
