"""The captioning task: sentences as word pieces, rewarded by CIDEr-D.

Axes: S rollouts, T tokens of a sequence, Q probed tokens, C captions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.example import Category, Dataset, Example
from rewardtune.datasets.frame import Framed
from rewardtune.datasets.images import decode_image
from rewardtune.records import Score
from rewardtune.tasks.captioning.cider.document_frequencies import (
    END_OF_SENTENCE,
    DocumentFrequencies,
    FrequenciesError,
)
from rewardtune.tasks.captioning.codec import CaptionCodec, CaptionTokens, Encoded
from rewardtune.tasks.captioning.config import CaptioningConfig, read_config
from rewardtune.tasks.captioning.metric import caption_metrics
from rewardtune.tasks.captioning.paint import paint_captions
from rewardtune.tasks.captioning.probe import CaptioningProbe
from rewardtune.tasks.captioning.ptb.tokenizer import ptb_words
from rewardtune.tasks.captioning.results_files import score_captions
from rewardtune.tasks.captioning.reward import CaptionReward
from rewardtune.tasks.captioning.vocabulary import load_vocabulary
from rewardtune.tasks.captioning.wording import ends_in_function_word, repeated_ngrams
from rewardtune.tasks.decoded import Decoded
from rewardtune.tasks.results_files import Progress
from rewardtune.tasks.token_task import TokenTask

SCORE_RULES = ("caption",)
"""One caption per image: there is nothing to rank."""

RESULT_NAMES = {
    "CIDEr-D": "cider_d", "BLEU-1": "bleu_1", "BLEU-2": "bleu_2", "BLEU-3": "bleu_3",
    "BLEU-4": "bleu_4", "ROUGE-L": "rouge_l",
}  # fmt: skip

_ARTEFACTS = ("vocabulary", "document_frequencies")


class CaptioningTask(TokenTask):
    """Codec, reward and metric of captioning; implements ``rewardtune.tasks.task.Task``."""

    name = "captioning"
    score_rules = SCORE_RULES

    def __init__(self, options: Mapping[str, Any], *, categories: Sequence[Category]) -> None:
        """Validate the options and read the vocabulary.

        Args:
            options: the fields of ``CaptioningConfig``.
            categories: of no consequence here.

        Raises:
            ValueError: an option that is unknown or out of range, or a vocabulary that cannot be
                read or has nothing to end a caption with.
        """
        self._config = read_config(options)
        self._codec = CaptionCodec(
            load_vocabulary(self._config.vocabulary, stop=self._config.stop),
            sequence_length=self._config.max_tokens,
            end=self._config.end,
        )
        super().__init__(
            CaptionTokens(
                task=self.name,
                size=self._codec.vocab_size,
                max_tokens=self._codec.sequence_length,
                stop_tokens=self._codec.stop_tokens,
                codec=self._codec,
            )
        )

    @staticmethod
    def artefacts(options: Mapping[str, Any]) -> Mapping[str, Path]:
        """The files that decide what tokens mean and what a caption earns."""
        return {key: Path(options[key]) for key in _ARTEFACTS if options.get(key) is not None}

    @classmethod
    def probe(cls, options: Mapping[str, Any], dataset: Dataset) -> CaptioningProbe:
        """Made captions, for ``rewardtune reward check``; options are those of the probe."""
        return CaptioningProbe(options, dataset)

    @staticmethod
    def score_files(
        results: Path,
        annotations: Path | None,
        options: Mapping[str, Any],
        *,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        return score_captions(results, annotations, options)

    @property
    def config(self) -> CaptioningConfig:
        return self._config

    @property
    def codec(self) -> CaptionCodec:
        return self._codec

    @property
    def score_bounds(self) -> dict[str, tuple[float, float]]:
        """Those of CIDEr-D, and of shares."""
        share = (0.0, 1.0)
        return {
            "reward": (0.0, 10.0),
            "ends_in_function_word": share,
            "at_cap": share,
            "repeated_ngrams": share,
        }

    def target_tokens(self, framed: Framed, *, rng: np.random.Generator) -> NDArray[np.int32]:
        """One of the image's captions, drawn by ``rng``, as tokens [T].

        Raises:
            ValueError: the image has no captions.
        """
        return self._target(framed, rng).tokens_T

    def is_cut(self, framed: Framed, *, rng: np.random.Generator) -> bool:
        """Whether the caption that ``rng`` draws is longer than a sequence."""
        return self._target(framed, rng).num_dropped > 0

    def _target(self, framed: Framed, rng: np.random.Generator) -> Encoded:
        captions = _captions(framed.example)
        return self._codec.encode(captions[int(rng.integers(len(captions)))])

    def score(self, decoded: Decoded[str, Sequence[str]], framed: Framed) -> Score:
        """CIDEr-D of each rollout against all captions of the image, 0 to 10.

        Components, none of which is part of the reward: "words"; "ends_in_function_word" and
        "at_cap" (the sequence is full and has no end), 0 or 1; "repeated_ngrams", a share.

        Raises:
            ValueError: the image has no captions; or no document frequencies were given.
        """
        tokens_ST = decoded.tokens_ST
        words_S = [ptb_words(text) for text in decoded.seen]
        length_S = np.array([self._codec.num_pieces(tokens_T) for tokens_T in tokens_ST])
        is_full_S = length_S == self.vocabulary.max_tokens
        return Score(
            reward_S=self._rewards(tokens_ST, words_S, is_full_S, _captions(framed.example)),
            components={
                "words": np.array([len(words) for words in words_S], dtype=np.float64),
                "ends_in_function_word": np.array(
                    [ends_in_function_word(words) for words in words_S], dtype=np.float64
                ),
                "repeated_ngrams": np.array([repeated_ngrams(words) for words in words_S]),
                "at_cap": is_full_S.astype(np.float64),
            },
        )

    def _rewards(
        self,
        tokens_ST: NDArray[np.int32],
        words_S: Sequence[Sequence[str]],
        is_full_S: NDArray[np.bool_],
        captions: tuple[str, ...],
    ) -> NDArray[np.float64]:
        if self._config.scored_as == "tokens":
            # The scorer's end is a 0.
            is_end_ST = tokens_ST == self._codec.end_token
            ids_ST = np.where(is_end_ST.cumsum(axis=1) > 0, 0, tokens_ST)
            return self._reward.score(ids_ST, [self._pieces(caption) for caption in captions])
        ended = [
            [*words, END_OF_SENTENCE] if self._config.scores_end and not is_full else words
            for words, is_full in zip(words_S, is_full_S, strict=True)
        ]
        return self._reward.score(ended, captions)

    def _pieces(self, caption: str) -> list[int]:
        tokens_T = self._codec.encode(caption).tokens_T
        return [int(token) for token in tokens_T[: self._codec.num_pieces(tokens_T)]]

    @cached_property
    def _reward(self) -> CaptionReward:
        path = self._config.document_frequencies
        if path is None:
            raise ValueError(
                "captions are rewarded by how rare their n-grams are in the training set: set "
                "task_options.document_frequencies to a file that rewardtune data cider-stats made "
                "of it"
            )
        frequencies = DocumentFrequencies.open(path)
        found, needed = frequencies.facts.splitting, self._config.scored_as
        if (found == "ids") != (needed == "tokens"):
            raise FrequenciesError(
                f"{path} counts {'token ids' if found == 'ids' else 'words'}, but scored_as = "
                f"'{needed}': make frequencies of the same kind"
            )
        return CaptionReward(frequencies, end_of_sentence=self._config.scores_end)

    def decode(self, tokens_ST: NDArray[np.int32], framed: Framed) -> Decoded[str, Sequence[str]]:
        """The caption of each rollout, as text.

        Raises:
            ValueError: ``tokens_ST`` is not integers of shape [S, T] with the codec's T.
        """
        if tokens_ST.ndim != 2 or tokens_ST.shape[1] != self.vocabulary.max_tokens:
            raise ValueError(
                f"captions must be [S, {self.vocabulary.max_tokens}] tokens, got "
                f"{list(tokens_ST.shape)}: sampler and task must agree on max_tokens"
            )
        texts = [self._codec.decode(tokens_T) for tokens_T in tokens_ST]
        return Decoded(tokens_ST, texts, texts.__getitem__)

    def predict(
        self,
        decoded: Decoded[str, Sequence[str]],
        log_probs_T: NDArray[np.float32],
        probe_log_probs_TQ: NDArray[np.float32],
        framed: Framed,
        *,
        score_rule: str,
    ) -> list[dict[str, Any]]:
        """One record of the COCO caption server's results: image_id, caption."""
        return [{"image_id": framed.example.image_id, "caption": decoded[0]}]

    def evaluate(
        self, results: Sequence[Mapping[str, Any]], dataset: Dataset, *, indices: Sequence[int]
    ) -> dict[str, float]:
        """The COCO caption server's metrics over the examples at ``indices``, and watch figures.

        Keys: cider_d (0 to 10; document frequencies of the examples' own captions), bleu_1 to
        bleu_4, rouge_l, words_per_caption, ends_in_function_word_ratio, repeated_ngram_ratio.

        Raises:
            ValueError: no indices, or an image without captions.
        """
        self._check_indices(indices)
        examples = [dataset.example(index) for index in indices]
        ground_truth = {
            "images": [{"id": example.image_id} for example in examples],
            "annotations": [
                {"image_id": example.image_id, "caption": caption}
                for example in examples
                for caption in _captions(example)
            ],
        }
        metrics = caption_metrics(ground_truth, results)
        words_C = [ptb_words(record["caption"]) for record in results]
        return {
            **{name: float(metrics[theirs]) for theirs, name in RESULT_NAMES.items()},
            "words_per_caption": float(np.mean([len(words) for words in words_C])),
            "ends_in_function_word_ratio": float(
                np.mean([ends_in_function_word(words) for words in words_C])
            ),
            "repeated_ngram_ratio": float(np.mean([repeated_ngrams(words) for words in words_C])),
        }

    def paint(
        self, example: Example, records: Sequence[Mapping[str, Any]] | None
    ) -> NDArray[np.uint8]:
        """The picture with its predicted caption below, or, of None, with those annotated."""
        captions = (
            example.captions if records is None else [record["caption"] for record in records]
        )
        return paint_captions(decode_image(example.image), captions)

    def write_results(self, records: Sequence[Mapping[str, Any]], folder: Path) -> None:
        """``results.json``, as the COCO caption server takes it."""
        partial = folder / ".results.json"
        partial.write_text(json.dumps(list(records)) + "\n", encoding="utf-8")
        partial.replace(folder / "results.json")


def _captions(example: Example) -> tuple[str, ...]:
    if not example.captions:
        raise ValueError(
            f"image {example.file_name} (id {example.image_id}) has no captions: convert the data "
            f"with --captions, or leave the image out"
        )
    return example.captions
