"""The caption reward, checked on sentences.

Axes: S predictions, N examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rewardtune.datasets.example import Dataset, Example
from rewardtune.records import Score
from rewardtune.tasks.captioning.cider.document_frequencies import (
    END_OF_SENTENCE,
    DocumentFrequencies,
)
from rewardtune.tasks.captioning.metric import caption_metrics
from rewardtune.tasks.captioning.ptb.tokenizer import ptb_words
from rewardtune.tasks.captioning.reward import CaptionReward
from rewardtune.tasks.probe import Claim, Kind, Measured

MAX_REPLACED = 0.6
"""Largest share of words that a jittered caption has dropped or replaced."""
MAX_CORPUS = 5000
"""Examples whose references make the document frequencies where none are given."""


class CaptioningProbe:
    """Made captions; implements ``rewardtune.tasks.probe.Probe``."""

    task = "captioning"
    kinds: Sequence[Kind] = (
        "perfect", "shuffled", "duplicated", "jittered", "random", "empty",
    )  # fmt: skip

    def __init__(self, options: Mapping[str, Any], dataset: Dataset) -> None:
        """
        Args:
            options: document_frequencies, a file as ``rewardtune data cider-stats`` writes it,
                by default those of the first examples' references; scores_end, whether ending
                the sentence counts.

        Raises:
            ValueError: an option that it does not know, or a file that cannot be used.
        """
        if unknown := options.keys() - {"document_frequencies", "scores_end"}:
            raise ValueError(
                f"unknown option '{min(unknown)}' of captioning: valid options here are "
                "document_frequencies and scores_end"
            )
        self._dataset = dataset
        self._scores_end = bool(options.get("scores_end", False))
        corpus = [
            [ptb_words(caption) for caption in dataset.example(index).captions]
            for index in range(min(len(dataset), MAX_CORPUS))
        ]
        self._words = sorted({word for group in corpus for words in group for word in words})
        path = options.get("document_frequencies")
        if path is None:
            frequencies = DocumentFrequencies.of_words(corpus, counts_end=self._scores_end)
        else:
            frequencies = DocumentFrequencies.open(Path(path))
        if frequencies.facts.splitting != "ptb":
            raise ValueError(
                f"{path} counts captions split by '{frequencies.facts.splitting}', and here they "
                "are words of the official tokenizer: make a file of those"
            )
        self._reward = CaptionReward(frequencies, end_of_sentence=self._scores_end)

    def draw(self, kind: Kind, example: Example, rng: np.random.Generator) -> str:
        if not example.captions:
            raise ValueError(
                f"image {example.file_name} (id {example.image_id}) has no captions: convert the "
                "data with rewardtune data coco --captions"
            )
        caption = example.captions[0]
        words = caption.split()
        if kind == "empty":
            return ""
        if kind == "shuffled":
            return " ".join(words[i] for i in rng.permutation(len(words)))
        if kind == "duplicated":
            return f"{caption} {caption}"
        if kind == "jittered":
            return " ".join(self._with_mistakes(words, rng))
        if kind == "random":
            return " ".join(self._any_word(rng) for _ in words)
        return caption

    def score(self, predictions: Sequence[str], example: Example) -> Score:
        end = [END_OF_SENTENCE] if self._scores_end else []
        words_S = [[*ptb_words(caption), *end] for caption in predictions]
        return Score(reward_S=self._reward.score(words_S, example.captions))

    def decoded(self, predictions: Sequence[str], example: Example) -> Sequence[str]:
        return predictions

    def claims(self, example: Example, rng: np.random.Generator) -> Sequence[Claim[str]]:
        jittered = self.draw("jittered", example, rng)
        order = rng.permutation(len(example.captions))
        turned = replace(example, captions=tuple(example.captions[i] for i in order))
        return (Claim("reference order", jittered, jittered, example_after=turned),)

    def measure(self, predictions: Sequence[str], indices: Sequence[int]) -> Measured:
        """Of the caption server, with document frequencies of these examples."""
        examples = [self._dataset.example(index) for index in indices]
        metrics = caption_metrics(
            {
                "images": [{"id": example.image_id} for example in examples],
                "annotations": [
                    {"image_id": example.image_id, "caption": caption}
                    for example in examples
                    for caption in example.captions
                ],
            },
            [
                {"image_id": example.image_id, "caption": caption}
                for example, caption in zip(examples, predictions, strict=True)
            ],
            per_image=True,
        )
        rows = metrics.pop("per_image")
        return Measured(
            overall=metrics,
            per_example_N={name: np.array([row[name] for row in rows]) for name in metrics},
        )

    def _with_mistakes(self, words: Sequence[str], rng: np.random.Generator) -> list[str]:
        """Some words dropped, some replaced."""
        share = rng.uniform(0, MAX_REPLACED)
        made = []
        for word in words:
            chance = rng.random()
            if chance >= share:
                made.append(word)
            elif chance >= share / 2:
                made.append(self._any_word(rng))
        return made

    def _any_word(self, rng: np.random.Generator) -> str:
        return self._words[int(rng.integers(len(self._words)))]
