"""What the tasks of a stage I share: its codes are their tokens. Reads without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rewardtune.datasets.frame import Framing
from rewardtune.tasks.options import read_options
from rewardtune.tasks.token_task import TokenTask
from rewardtune.tasks.uvim.options import StageOneOptions, stage_one_artefact
from rewardtune.tasks.vocabulary import Vocabulary

if TYPE_CHECKING:
    from rewardtune.tasks.uvim.codec import StageOneCodec

Options = TypeVar("Options", bound=StageOneOptions)


class StageOneTask(TokenTask, Generic[Options]):
    """The part of ``rewardtune.tasks.task.Task`` that follows from the stage I of the options."""

    def __init__(
        self,
        model: type[Options],
        options: Mapping[str, Any],
        *,
        meaning: Mapping[str, Any] | None = None,
    ) -> None:
        """Validate the options and map stage I into memory.

        Args:
            meaning: of codes, beside the stage I that made them.

        Raises:
            ValueError: an option that is unknown or out of range, or a stage I that cannot be
                read or is for something else.
        """
        from rewardtune.tasks.uvim.codec import DecodeSettings, open_codec

        self._options = read_options(model, options, task=self.name)
        settings = DecodeSettings(
            dtype=self._options.decode_dtype,
            batch=self._options.decode_batch,
            threads=self._options.decode_threads,
        )
        self._codec: StageOneCodec = open_codec(self._options.stage_one, settings)
        if self._codec.config.kind != self.name:
            raise ValueError(
                f"stage I {self._options.stage_one} is for {self._codec.config.kind}: name one "
                f"for {self.name} in task_options.stage_one"
            )
        super().__init__(
            Vocabulary(
                task=self.name,
                size=self._codec.vocab_size,
                max_tokens=self._codec.sequence_length,
                # No stop token: every position holds a code.
                meaning={"stage_one": self._codec.digest, **(meaning or {})},
            )
        )

    @staticmethod
    def artefacts(options: Mapping[str, Any]) -> Mapping[str, Path]:
        return stage_one_artefact(options)

    @property
    def codec(self) -> StageOneCodec:
        return self._codec

    def _check_framing(self, framing: Framing) -> None:
        """
        Raises:
            ValueError: the policy sees pictures of another size than stage I.
        """
        needed = self._codec.config.input_size
        if framing.side != needed:
            raise ValueError(
                f"the policy sees {framing.side} x {framing.side} pixels but stage I "
                f"{self._options.stage_one} decodes {needed} x {needed}: set policy.input_size to "
                f"{needed}, or name another task_options.stage_one"
            )

    def _check_rule(self, score_rule: str) -> None:
        (known,) = self.score_rules
        if score_rule != known:
            raise ValueError(f"score_rule '{score_rule}' is unknown: there is '{known}' alone")
