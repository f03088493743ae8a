"""What a task's tokens are: one value that sampler, learner and policy read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The sequences that a task's policy draws: which tokens there are, and where they end.

    Raises:
        ValueError: a token that is none, a run of fewer than two levels, steps that do not fill a
            sequence, or a readout of steps of one token.
    """

    task: str
    """Name of the task."""

    size: int
    """Number of tokens: they are 0 to ``size - 1``."""

    max_tokens: int
    """Length of a sequence."""

    stop_tokens: tuple[int, ...] = ()
    """A sequence that draws any of them is finished; none: every position is drawn."""

    probe_tokens: tuple[int, ...] = ()
    """Tokens whose log-probs the sampler returns at every position."""

    levels: tuple[range, ...] = ()
    """Runs of tokens that stand for evenly spaced values, such as those of a coordinate: to a fresh
    policy neighbours in them are alike."""

    step_length: int = 1
    """Tokens of one step, such as a box: a sequence is whole steps."""

    has_readout: bool = False
    """Whether the last token of a step says how good the step is, as a confidence does: a policy
    may then read it out by weights of its own (``policy.readout``)."""

    readout_seen_as: int | None = None
    """What later tokens see in place of any that was read out, but for 0; None: what was drawn."""

    meaning: Mapping[str, Any] = field(default_factory=dict)
    """What else tells this vocabulary from others, as JSON: class names, levels of a coordinate."""

    def __post_init__(self) -> None:
        seen_as = () if self.readout_seen_as is None else (self.readout_seen_as,)
        for name, tokens in (
            ("stop_tokens", self.stop_tokens),
            ("probe_tokens", self.probe_tokens),
            ("readout_seen_as", seen_as),
            ("levels", tuple(end for run in self.levels for end in (run.start, run.stop - 1))),
        ):
            if odd := [token for token in tokens if not 0 <= token < self.size]:
                raise ValueError(
                    f"{name} of task '{self.task}' has {odd[0]}, which is no token: name tokens "
                    f"from 0 to {self.size - 1}"
                )
        if any(run.step != 1 or len(run) < 2 for run in self.levels):
            raise ValueError(
                f"levels of task '{self.task}' are {list(self.levels)}: name runs of two tokens or "
                "more, each the one before plus 1"
            )
        if self.step_length < 1 or self.max_tokens % self.step_length:
            raise ValueError(
                f"sequences of task '{self.task}' have {self.max_tokens} tokens, which are no "
                f"whole steps of {self.step_length}: make max_tokens a multiple of step_length"
            )
        if self.has_readout and self.step_length < 2:
            raise ValueError(
                f"task '{self.task}' reads out the last token of steps of {self.step_length}: set "
                "step_length to 2 or more, or has_readout to False"
            )
        if seen_as and not self.has_readout:
            raise ValueError(
                f"task '{self.task}' has readout_seen_as = {self.readout_seen_as} but reads "
                "nothing out: set has_readout to True, or leave readout_seen_as out"
            )

    def check_folder(self, folder: Path) -> None:
        """Hold the tokens against those of a model's folder, where it says what they mean.

        Raises:
            ValueError: they mean something else there.
        """

    def describe(self) -> dict[str, Any]:
        """What each token means, as JSON: a policy stores it to refuse another vocabulary.

        Only what tells tokens apart. What is probed, or where sequences end, may change without
        making another policy.
        """
        return {
            "task": self.task,
            "vocab_size": self.size,
            "sequence_length": self.max_tokens,
            **self.meaning,
        }
