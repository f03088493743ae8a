"""What a folder of transformers' says of its model, and how transformers is kept quiet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, PositiveInt
from transformers.utils import logging as transformers_logging

CONFIG, GENERATION, PROCESSOR = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
)


@contextmanager
def quietly() -> Iterator[None]:
    """Without transformers' progress bars and remarks: what matters is said by errors."""
    verbosity = transformers_logging.get_verbosity()
    has_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if has_bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


class HuggingFaceError(ValueError):
    """A model that cannot be used as a policy; one line that says why."""


class HuggingFaceConfig(BaseModel):
    """A model as its folder describes it; stored beside its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: dict[str, str]
    """The folder's text files by name, tokenizer included, so that it can be written again."""

    sequence_length: PositiveInt
    """Tokens that are drawn; the model may have room for more."""

    @cached_property
    def model(self) -> dict[str, Any]:
        return self._read(CONFIG)

    @cached_property
    def start_token(self) -> int:
        """What stands before the first token.

        Raises:
            HuggingFaceError: the model names none.
        """
        found = self._first("decoder_start_token_id", "bos_token_id")
        if found is None:
            raise HuggingFaceError(
                f"the model's {CONFIG} has no decoder_start_token_id: set "
                "model.config.decoder_start_token_id before save_pretrained"
            )
        return int(found)

    @cached_property
    def stop_tokens(self) -> tuple[int, ...]:
        """What ends a sequence in the model's own ``generate``; empty if it says nothing."""
        found = self._first("eos_token_id")
        if found is None:
            return ()
        return tuple(found) if isinstance(found, list) else (int(found),)

    @property
    def image_mean(self) -> tuple[float, ...]:
        """Of colours in [0, 1]; with ``image_std`` it maps them to what the encoder wants."""
        return tuple(self._read(PROCESSOR).get("image_mean") or (0.5, 0.5, 0.5))

    @property
    def image_std(self) -> tuple[float, ...]:
        return tuple(self._read(PROCESSOR).get("image_std") or (0.5, 0.5, 0.5))

    def _first(self, *keys: str) -> Any:
        """The first value that is there, the way transformers looks for it."""
        places = (self._read(GENERATION), self.model, self.model.get("decoder", {}))
        for key in keys:
            for place in places:
                if place.get(key) is not None:
                    return place[key]
        return None

    def _read(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.files.get(name, "{}"))
        return found
