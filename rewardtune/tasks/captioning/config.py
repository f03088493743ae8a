"""What the captioning task can be told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rewardtune.tasks.captioning.codec import End
from rewardtune.tasks.captioning.vocabulary import STOP
from rewardtune.tasks.options import read_options


class CaptioningConfig(BaseModel):
    """Options of ``load_task("captioning", ...)``; part of a run's identity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    vocabulary: Path = Field(
        description="a tokenizer.json, a vocab.txt, or a folder with one of them"
    )
    """A ``tokenizer.json``, a ``vocab.txt``, or a folder with one of them, such as a model's."""

    stop: str = STOP
    """The piece that ends a caption: BERT's is ``[SEP]``, GPT-2's ``<|endoftext|>``."""

    max_tokens: int = Field(default=128, ge=2)
    """Length of a sequence, its end included. Longer captions are cut and counted."""

    end: End = "sep"
    """What ends a sequence; see ``codec.End``."""

    document_frequencies: Path | None = None
    """How many training images each n-gram occurs with, as ``rewardtune data
    cider-stats`` writes it. Only rewards need it."""

    scored_as: Literal["words", "tokens"] = "words"
    """What n-grams are made of: decoded words, or the policy's own tokens, as in self-critical
    training. The document frequencies must be of the same kind."""

    scores_end: bool = False
    """Count the end of a sentence as a word, in captions and references. Without it the reward
    does not see whether a caption ends where a sentence does."""


def read_config(options: Mapping[str, Any]) -> CaptioningConfig:
    """Validate the task's options.

    Raises:
        ValueError: one line with key, value and what would be valid.
    """
    return read_options(CaptioningConfig, options, task="captioning")
