from __future__ import annotations

from collections import Counter

import pytest

from rewardtune.datasets.digits.facts import is_grammatical, said, seen, truthfulness
from rewardtune.datasets.digits.files import write_digits
from rewardtune.datasets.digits.scenes import SceneStyle
from rewardtune.datasets.shards.dataset import ShardDataset, open_dataset

# pycocotools is older than the numpy it runs with.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    folder = tmp_path_factory.mktemp("facts") / "digits"
    write_digits(folder, num_scenes={"holdout": 40}, style=SceneStyle(min_digits=1, max_digits=5))
    return open_dataset(folder / "holdout")


def test_all_that_the_grammar_says_is_grammatical_and_true(scenes: ShardDataset) -> None:
    for index in range(len(scenes)):
        example = scenes.example(index)
        truth = seen(example)
        assert truth.total == truth.digits.total() == truth.colours.total()
        for caption in example.captions:
            assert is_grammatical(caption), caption
            claims = said(caption)
            assert claims.digits <= truth.digits, caption
            assert claims.colours <= truth.colours, caption
            assert claims.total in (None, truth.total), caption


def test_the_first_caption_says_all_digits_and_all_colours(scenes: ShardDataset) -> None:
    for index in range(len(scenes)):
        example = scenes.example(index)
        claims, truth = said(example.captions[0]), seen(example)
        assert (claims.digits, claims.colours) == (truth.digits, truth.colours)


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a red seven to the left of a",
        "there are two red sevens and",
        "two digits, a red seven and a green eight in front of",
        "a seven seven in front of stripes",
        "a red seven and a green eight, the largest of them",
    ],
)
def test_sentences_that_break_off_are_not_grammatical(caption: str) -> None:
    assert not is_grammatical(caption)


def test_claims_are_read_from_broken_sentences_too() -> None:
    claims = said("there are two red sevens, a white eight and a")
    assert claims.digits == Counter(seven=2, eight=1)
    assert claims.colours == Counter(red=2, white=1)
    assert said("four digits, a blue").total == 4
    assert said("a single digit, a blue").total == 1


def test_truthfulness_is_1_for_true_captions_and_falls_with_false_ones(
    scenes: ShardDataset,
) -> None:
    examples = [scenes.example(index) for index in range(len(scenes))]
    true = truthfulness([example.captions[2] for example in examples], examples)
    assert set(true.values()) == {1.0}
    silent = truthfulness([example.captions[0] for example in examples], examples)
    assert (silent["count_precision"], silent["count_recall"]) == (1.0, 0.0)
    turned = truthfulness([example.captions[0] for example in examples[::-1]], examples)
    assert turned["grammatical"] == 1.0
    assert turned["digit_precision"] < 0.5 and turned["colour_recall"] < 0.8
    counts = truthfulness([example.captions[2] for example in examples[::-1]], examples)
    assert counts["count_precision"] == counts["count_recall"] < 0.6
