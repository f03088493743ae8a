"""CIDEr-D of whole batches, and splitting captions, beside pycocoevalcap: one thread each.

Processor time, because the machine is shared. A batch is one of the paper's steps: 256 images, 8
captions and 5 references each; real captions of the shared data, or made ones of like statistics
where those are not there.

Axes: I images, S captions of an image, C captions of all images, T tokens, N n-grams.
"""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.figure import Figure, figure
from bench.processor_time import processor_timed
from bench.timing import interleaved
from rewardtune.tasks.captioning.cider.document_frequencies import DocumentFrequencies
from rewardtune.tasks.captioning.cider.kernel import ngram_key
from rewardtune.tasks.captioning.ptb.tokenizer import ptb_tokens
from rewardtune.tasks.captioning.reward import CaptionReward
from rewardtune.tasks.kernel import compiled

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "captions"
SYSTEMS = (
    "zerocap", "contrastive", "nucleus1", "nucleus2", "nucleus3", "topk1", "topk2", "topk3",
)  # fmt: skip
NUM_IMAGES = 256


NUM_REPEATS = 20
"""Calls of ours in a round, which take milliseconds: the peer's second would leave caches cold."""
NUM_TRAINING_NGRAMS = 4_200_000
"""Of COCO's training set."""


@dataclass(frozen=True, slots=True)
class Captions:
    """Captions of some images."""

    references: list[list[list[str]]]
    """Split into words; ``raw`` are the same as they were written."""
    raw: list[tuple[str, ...]]
    candidates: list[list[list[str]]]
    are_real: bool

    @property
    def num_candidates(self) -> int:
        return sum(map(len, self.candidates))


def cider(*, is_quick: bool) -> Iterator[Figure]:
    """Captions per second.

    Raises:
        AssertionError: a score or a word is not the peer's.
        ModuleNotFoundError: pycocoevalcap is not installed.
    """
    captions = shared_captions() if SHARED.exists() else made_captions()
    yield from cider_figures(captions, num_rounds=3 if is_quick else 9)


def cider_figures(captions: Captions, *, num_rounds: int) -> Iterator[Figure]:
    """The figures of one batch.

    The same batch as token ids in one array, as a policy may draw them, and as words; with
    references seen before, and ".cold", where they are split and cooked first. The peer counts
    document frequencies in each call, of all candidates' references; ours are the same, counted
    before. ".training_set" looks n-grams up among as many as a training set has.

    The floor makes the key of each n-gram and reads one cell of the frequencies' table for it:
    whatever a score is made of, that comes first.
    """
    peer_cider, peer_split = _pycocoevalcap()
    references, num = captions.raw, captions.num_candidates
    frequencies = DocumentFrequencies.of_words(
        [
            image
            for image, group in zip(captions.references, captions.candidates, strict=True)
            for _ in group
        ]
    )
    tokens_IST = _as_tokens(captions.candidates, frequencies)
    training_set = _with_made_ngrams(frequencies, num=NUM_TRAINING_NGRAMS)
    reward, training_reward = CaptionReward(frequencies), CaptionReward(training_set)
    texts = [[" ".join(words) for words in image] for image in captions.references]
    candidate_texts = [[" ".join(words) for words in group] for group in captions.candidates]

    expected = peer_cider(texts, candidate_texts)
    difference = np.abs(reward.score_batch(captions.candidates, references) - expected).max()
    assert difference < 1e-12, f"pycocoevalcap's scores differ by {difference}"

    ours: dict[str, Callable[[], object]] = {
        "": lambda: reward.score_batch(tokens_IST, references),
        ".words": lambda: reward.score_batch(captions.candidates, references),
        ".training_set": lambda: training_reward.score_batch(tokens_IST, references),
        "floor": lambda: _look_up_only(tokens_IST, frequencies),
        "training_floor": lambda: _look_up_only(tokens_IST, training_set),
    }
    ways: dict[str, Callable[[], object]] = {
        name: _repeated(way, NUM_REPEATS) for name, way in ours.items()
    }
    ways[".cold"] = lambda: CaptionReward(frequencies).score_batch(captions.candidates, references)
    ways["peer"] = lambda: peer_cider(texts, candidate_texts)
    seconds = interleaved(
        {name: processor_timed(way) for name, way in ways.items()}, num_rounds=num_rounds
    )
    for suffix in ("", ".words", ".training_set", ".cold"):
        num_calls = 1 if suffix == ".cold" else NUM_REPEATS
        floor = "training_floor" if suffix == ".training_set" else "floor"
        yield figure(
            f"reward.cider{suffix}",
            seconds[suffix] / num_calls,
            amount=num,
            unit="captions/s",
            peer="pycocoevalcap Cider" + ("" if captions.are_real else ", made captions"),
            peer_seconds=seconds["peer"],
            floor_seconds=seconds[floor] / NUM_REPEATS,
        )
    yield _split_figure(captions, peer_split, num_rounds=num_rounds)


def _split_figure(
    captions: Captions, peer_split: Callable[[list[str]], list[str]] | None, *, num_rounds: int
) -> Figure:
    """Captions split into words per second."""
    texts = [text for image in captions.raw for text in image]

    def split() -> list[str]:
        return [" ".join(ptb_tokens(text)) for text in texts]

    peer_seconds = None
    if peer_split is not None:
        before = _processor_seconds()
        peer_words = peer_split(texts)
        peer_seconds = _processor_seconds() - before
        # The last one loses an apostrophe there.
        assert split()[:-1] == peer_words[:-1], "pycocoevalcap splits captions differently"
    return figure(
        "reward.cider.split",
        interleaved({"ours": processor_timed(split)}, num_rounds=num_rounds)["ours"],
        amount=len(texts),
        unit="captions/s",
        peer=None if peer_seconds is None else "pycocoevalcap PTBTokenizer, its JVM included",
        peer_seconds=peer_seconds,
    )


def _repeated(way: Callable[[], object], times: int) -> Callable[[], object]:
    def repeat() -> None:
        for _ in range(times):
            way()

    return repeat


def _with_made_ngrams(frequencies: DocumentFrequencies, *, num: int) -> DocumentFrequencies:
    """The same vocabulary, and so many made n-grams instead of its own."""
    rng = np.random.default_rng(0)
    ngram_N4 = np.unique(
        rng.integers(1, len(frequencies.vocabulary), size=(num, 4), dtype=np.int32), axis=0
    )
    return DocumentFrequencies.of_counts(
        ngram_N4,
        np.ones(len(ngram_N4), dtype=np.int64),
        num_images=113_287,
        vocabulary=frequencies.vocabulary,
        counts_end=False,
        splitting="ptb",
    )


def shared_captions() -> Captions:
    """The first images of the shared data with eight systems' captions."""
    images = json.loads((SHARED / "refs.json").read_text())[:NUM_IMAGES]
    systems = json.loads((SHARED / "candidates.json").read_text())
    of_image = {
        system: {caption["image_id"]: caption["ptb"] for caption in systems[system]}
        for system in SYSTEMS
    }
    return Captions(
        references=[[text.split() for text in image["ptb"]] for image in images],
        candidates=[
            [of_image[system][image["image_id"]].split() for system in SYSTEMS] for image in images
        ],
        raw=[tuple(image["raw"]) for image in images],
        are_real=True,
    )


def made_captions(*, num_images: int = NUM_IMAGES) -> Captions:
    """Words drawn with the frequencies of a language, some of them common to an image."""
    rng = np.random.default_rng(0)

    def sentence(topic: NDArray[np.int64]) -> list[str]:
        length = max(5, rng.poisson(10))
        word_W = np.minimum(rng.zipf(1.3, size=length), 9000)
        return [f"w{rng.choice(topic) if rng.random() < 0.4 else word}" for word in word_W.tolist()]

    topics = [rng.integers(1, 9000, size=12) for _ in range(num_images)]
    references = [[sentence(topic) for _ in range(5)] for topic in topics]
    return Captions(
        references=references,
        candidates=[[sentence(topic) for _ in range(8)] for topic in topics],
        raw=[tuple(" ".join(words).capitalize() + "." for words in image) for image in references],
        are_real=False,
    )


def _as_tokens(
    candidates: Sequence[Sequence[Sequence[str]]], frequencies: DocumentFrequencies
) -> NDArray[np.int32]:
    """Ids of groups of one size [I, S, T], 0 behind the last word."""
    longest = max(len(words) for group in candidates for words in group)
    tokens_IST = np.zeros((len(candidates), len(candidates[0]), longest + 1), dtype=np.int32)
    last = len(frequencies.vocabulary) - 1
    for i, group in enumerate(candidates):
        for s, words in enumerate(group):
            ids = [frequencies.id_of_word.get(word, last) for word in words]
            tokens_IST[i, s, : len(ids)] = ids
    return tokens_IST


def _look_up_only(tokens_IST: NDArray[np.int32], frequencies: DocumentFrequencies) -> object:
    tokens_CT = tokens_IST.reshape(-1, tokens_IST.shape[-1])
    return _sum_first_reads(
        tokens_CT, frequencies.cell, frequencies.shift, frequencies.facts.is_wide
    )


@compiled
def _sum_first_reads(
    tokens_CT: NDArray[np.int32], cell: NDArray[np.uint64], shift: int, is_wide: bool
) -> int:
    total = np.uint64(0)
    stride = 3 if is_wide else 2
    for c in range(len(tokens_CT)):
        length = 0
        while length < tokens_CT.shape[1] and tokens_CT[c, length] != 0:
            length += 1
        for n in range(1, 5):
            for i in range(length - n + 1):
                first, _ = ngram_key(tokens_CT[c], i, n, is_wide)
                total += cell[np.int64(first >> np.uint64(shift)) * stride]
    return int(total)


def _processor_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _pycocoevalcap() -> tuple[
    Callable[[list[list[str]], list[list[str]]], NDArray[np.float64]],
    Callable[[list[str]], list[str]] | None,
]:
    """Its CIDEr-D, and its tokenizer where there is a Java to run it."""
    try:
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the peer pycocoevalcap is not installed: pip install -e '.[peers]'"
        ) from error

    def score(references: list[list[str]], candidates: list[list[str]]) -> NDArray[np.float64]:
        # It scores one caption per image: the others are images of their own.
        pairs = [
            (image, text)
            for image, group in zip(references, candidates, strict=True)
            for text in group
        ]
        scores: NDArray[np.float64] = Cider().compute_score(
            {i: image for i, (image, _) in enumerate(pairs)},
            {i: [text] for i, (_, text) in enumerate(pairs)},
        )[1]
        return scores

    def split(captions: list[str]) -> list[str]:
        words = PTBTokenizer().tokenize({i: [{"caption": c}] for i, c in enumerate(captions)})
        return [words[i][0] for i in range(len(captions))]

    return score, split if shutil.which("java") else None
