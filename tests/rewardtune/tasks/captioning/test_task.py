"""The captioning task. Axes: S rollouts, T tokens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rewardtune.datasets.frame import Framed, Square
from rewardtune.records import View
from rewardtune.tasks.captioning.cider.definition import (
    cider_d,
    document_frequency,
    inverse_frequency,
)
from rewardtune.tasks.captioning.cider.document_frequencies import DocumentFrequencies
from rewardtune.tasks.captioning.ptb.tokenizer import ptb_words
from rewardtune.tasks.captioning.task import CaptioningTask
from rewardtune.tasks.task import load_task
from tests.rewardtune.tasks.captioning.small_captions import (
    CAPTIONS,
    CaptionedImages,
    example,
    write_frequencies,
    write_pieces,
)
from tests.rewardtune.tasks.rollouts import predicted, scored

LENGTH = 24
WORDS = [[ptb_words(caption) for caption in captions] for captions in CAPTIONS]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("captioning")
    return {
        "vocabulary": str(write_pieces(folder)),
        "document_frequencies": str(write_frequencies(folder)),
        "max_tokens": LENGTH,
    }


def make(options: dict[str, Any], **changes: Any) -> CaptioningTask:
    task = load_task("captioning", {**options, **changes}, categories=())
    assert isinstance(task, CaptioningTask)
    return task


def tokens_of(task: CaptioningTask, *captions: str) -> NDArray[np.int32]:
    return np.stack([task.codec.encode(caption).tokens_T for caption in captions])


def score(task: CaptioningTask, tokens_ST: NDArray[np.int32], captions: tuple[str, ...]) -> Any:
    return scored(task, tokens_ST, Framed.of(example(captions), View(), Square(side=32)))


def test_the_reward_is_cider_d_of_the_decoded_words(options: dict[str, Any]) -> None:
    task = make(options)
    candidates = ["a man riding a wave", "the dog's running on the grass", "two cats", ""]
    idf = inverse_frequency(document_frequency(WORDS), num_images=len(CAPTIONS))
    for captions, references in zip(CAPTIONS, WORDS, strict=True):
        found = score(task, tokens_of(task, *candidates), captions).reward_S
        expected = [cider_d(ptb_words(text), references, idf=idf) for text in candidates]
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_a_reference_beats_another_image_s_and_that_beats_nothing(options: dict[str, Any]) -> None:
    task = make(options)
    for captions in CAPTIONS:
        others = next(group for group in CAPTIONS if group != captions)
        own, other, empty = score(
            task, tokens_of(task, captions[1], others[1], ""), captions
        ).reward_S
        assert own > other >= empty == 0.0


def test_the_same_in_gives_the_same_out_in_any_company(options: dict[str, Any]) -> None:
    task = make(options)
    rng = np.random.default_rng(0)
    tokens_ST = rng.integers(0, task.vocabulary.size, (8, LENGTH)).astype(np.int32)
    together = score(task, tokens_ST, CAPTIONS[0])
    for row in range(8):
        alone = score(make(options), tokens_ST[row : row + 1], CAPTIONS[0])
        assert alone.reward_S[0] == together.reward_S[row]
        assert all(alone.components[n][0] == v[row] for n, v in together.components.items())


def test_what_stands_after_the_end_earns_nothing(options: dict[str, Any]) -> None:
    task = make(options)
    tokens_ST = tokens_of(task, "two cats", "two cats")
    end = task.codec.num_pieces(tokens_ST[0])
    tokens_ST[1, end + 1 :] = tokens_ST[1, 0]
    found = score(task, tokens_ST, CAPTIONS[1])
    assert found.reward_S[0] == found.reward_S[1] > 0


def test_watch_figures_are_told_and_are_no_part_of_the_reward(options: dict[str, Any]) -> None:
    task = make(options)
    tokens_ST = tokens_of(task, "a man riding a wave with a", "a dog a dog a dog", "")
    tokens_ST[2] = task.codec.encode("dog").tokens_T[0]  # no end anywhere
    components = score(task, tokens_ST, CAPTIONS[3]).components
    assert components["words"][:2].tolist() == [7, 6]
    assert components["ends_in_function_word"].tolist() == [1, 0, 0]
    assert components["repeated_ngrams"].tolist() == pytest.approx(
        [0, 1 - 2 / 4, 1 - 1 / (LENGTH - 2)]
    )
    assert components["at_cap"].tolist() == [0, 0, 1]


def test_scored_ends_make_a_broken_off_sentence_worse(
    options: dict[str, Any], tmp_path: Path
) -> None:
    """The paper's symptom: without the end, "with a" costs nothing against "with"."""
    ends = {
        "scores_end": True,
        "document_frequencies": str(write_frequencies(tmp_path, counts_end=True)),
    }
    whole, broken = "two cats sleep on a sofa", "two cats sleep on a sofa with a"
    plain, ended = make(options), make(options, **ends)
    losses = []
    for task in (plain, ended):
        rewards = score(task, tokens_of(task, whole, broken), CAPTIONS[1]).reward_S
        losses.append(1 - rewards[1] / rewards[0])
    assert losses[1] > losses[0]


def test_a_sequence_without_end_has_none_to_be_scored(
    options: dict[str, Any], tmp_path: Path
) -> None:
    frequencies = str(write_frequencies(tmp_path, counts_end=True))
    task = make(options, scores_end=True, document_frequencies=frequencies, max_tokens=7)
    text = "two cats sleep on a sofa"
    tokens_ST = tokens_of(task, text, text)
    assert task.codec.num_pieces(tokens_ST[0]) == 6
    tokens_ST[1, 6] = task.vocabulary.size + 1  # says nothing, but is no end
    ended, endless = score(task, tokens_ST, CAPTIONS[1]).reward_S
    assert ended > endless


def test_tokens_can_be_scored_instead_of_words(options: dict[str, Any], tmp_path: Path) -> None:
    plain = make(options)
    ids = [
        [[str(t) for t in plain._pieces(caption)] for caption in captions] for captions in CAPTIONS
    ]
    counted = document_frequency(ids)
    ngrams = [[*(int(str(t)) for t in gram), *[-1] * (4 - len(gram))] for gram in counted]
    path = tmp_path / "ids.arrow"
    DocumentFrequencies.of_counts(
        np.array(ngrams), np.array(list(counted.values())), num_images=4, counts_end=False
    ).write(path)
    task = make(options, scored_as="tokens", document_frequencies=str(path))
    idf = inverse_frequency(counted, num_images=4)
    text = "the surfer rides a big wave"
    expected = cider_d([str(t) for t in plain._pieces(text)], ids[3], idf=idf)
    found = score(task, tokens_of(task, text), CAPTIONS[3]).reward_S[0]
    assert found == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ValueError, match="counts token ids, but scored_as = 'words'"):
        score(make(options, document_frequencies=str(path)), tokens_of(task, text), CAPTIONS[3])


def test_every_caption_of_an_image_is_a_target_at_some_view(options: dict[str, Any]) -> None:
    task, framed = make(options), Framed.of(example(CAPTIONS[1]), View(), Square(side=32))
    seen = {
        task.codec.decode(task.target_tokens(framed, rng=np.random.default_rng(seed)))
        for seed in range(40)
    }
    assert seen == {
        task.codec.decode(task.codec.encode(caption).tokens_T) for caption in CAPTIONS[1]
    }
    assert not any(task.is_cut(framed, rng=np.random.default_rng(seed)) for seed in range(40))


def test_captions_that_are_too_long_are_told(options: dict[str, Any]) -> None:
    task = make(options, max_tokens=4)
    captions = ["two cats on a red sofa", "two cats"]
    framed = Framed.of(example(captions), View(), Square(side=32))
    for seed in range(20):
        # The same draw as that of the target's caption.
        drawn = captions[int(np.random.default_rng(seed).integers(2))]
        assert task.is_cut(framed, rng=np.random.default_rng(seed)) == (drawn == captions[0])


def test_results_are_the_caption_server_s_and_its_metrics_come_back(
    options: dict[str, Any],
) -> None:
    task, dataset = make(options), CaptionedImages()
    nothing = np.zeros(LENGTH, np.float32)
    results = [
        record
        for index in range(len(dataset))
        for record in predicted(
            task,
            tokens_of(task, CAPTIONS[index][0])[0],
            nothing,
            nothing[:, None][:, :0],
            Framed.of(dataset.example(index), View(), Square(side=32)),
            score_rule="caption",
        )
    ]
    assert [sorted(record) for record in results] == [["caption", "image_id"]] * 4
    metrics = task.evaluate(results, dataset, indices=range(4))
    assert next(iter(metrics)) == "cider_d"
    assert metrics["bleu_1"] == pytest.approx(1.0)
    assert metrics["rouge_l"] == pytest.approx(1.0)
    assert metrics["ends_in_function_word_ratio"] == 0.0
    blank = [{"image_id": record["image_id"], "caption": "with a"} for record in results]
    worse = task.evaluate(blank, dataset, indices=range(4))
    assert worse["cider_d"] < metrics["cider_d"]
    assert worse["ends_in_function_word_ratio"] == 1.0


def test_an_image_without_captions_is_one_clear_error(options: dict[str, Any]) -> None:
    task = make(options)
    with pytest.raises(ValueError, match=r"image 7\.png \(id 7\) has no captions: convert"):
        score(task, tokens_of(task, "a dog"), ())
    with pytest.raises(ValueError, match="has no captions"):
        task.target_tokens(
            Framed.of(example([]), View(), Square(side=32)), rng=np.random.default_rng(0)
        )


def test_rewards_without_document_frequencies_say_how_to_make_them(
    options: dict[str, Any],
) -> None:
    task = make({k: v for k, v in options.items() if k != "document_frequencies"})
    with pytest.raises(ValueError, match="rewardtune data cider-stats"):
        score(task, tokens_of(task, "a dog"), CAPTIONS[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocabulary": None}, "option 'vocabulary' is missing: .* a tokenizer.json"),
        ({"beam": 4}, "unknown captioning option 'beam' = 4: valid options are vocabulary, stop"),
        ({"end": "eos"}, "captioning option 'end' = 'eos'"),
        ({"max_tokens": 1}, "captioning option 'max_tokens' = 1"),
        ({"stop": "[END]"}, r"has no '\[END\]', the piece that ends a caption"),
    ],
)
def test_options_that_cannot_be_say_why(
    options: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    merged = {k: v for k, v in {**options, **changes}.items() if v is not None}
    with pytest.raises(ValueError, match=message):
        load_task("captioning", merged, categories=())


def test_sequences_of_another_length_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"captions must be \[S, 24\] tokens, got \[1, 5\]"):
        score(make(options), np.zeros((1, 5), np.int32), CAPTIONS[0])


def test_the_files_it_needs_are_named(options: dict[str, Any]) -> None:
    assert CaptioningTask.artefacts(options).keys() == {"vocabulary", "document_frequencies"}


def test_another_vocabulary_of_the_same_size_is_another_vocabulary(
    options: dict[str, Any], tmp_path: Path
) -> None:
    pieces = Path(options["vocabulary"]).read_text().splitlines()
    pieces[-1], pieces[-2] = pieces[-2], pieces[-1]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces))
    other = make(options, vocabulary=str(tmp_path))
    ours, theirs = make(options).vocabulary.describe(), other.vocabulary.describe()
    assert ours["vocab_size"] == theirs["vocab_size"]
    assert ours != theirs


@pytest.mark.slow
def test_the_task_starts_without_torch(options: dict[str, Any]) -> None:
    program = (
        "import sys; from rewardtune.tasks.task import load_task; "
        f"load_task('captioning', {options!r}, categories=()); "
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["False", "False"]
