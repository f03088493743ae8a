"""Reward functions that do what the first token of the first rollout says."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HANG, RAISE, NAN, SHORT, WORDS = range(150, 155)


def largest(predictions: Sequence[Sequence[int]], example: Any) -> Any:
    """The largest token of each rollout, unless the first rollout says otherwise."""
    values = [float(max(tokens)) for tokens in predictions]
    match int(predictions[0][0]):
        case t if t == HANG:
            while True:
                time.sleep(1)
        case t if t == RAISE:
            raise LookupError("no such thing")
        case t if t == NAN:
            return [float("nan")] * len(values)
        case t if t == SHORT:
            return values[1:]
        case t if t == WORDS:
            return ["many"] * len(values)
        case _:
            return values


def is_even(predictions: Sequence[Sequence[int]], example: Any) -> list[bool]:
    return [sum(tokens) % 2 == 0 for tokens in predictions]


class FromFile:
    """A number in a file, the same for all."""

    num_built = 0

    def __init__(self, *, path: str, times: float = 1.0) -> None:
        FromFile.num_built += 1
        self._value = times * float(Path(path).read_text())

    @staticmethod
    def artefacts(options: Mapping[str, Any]) -> Mapping[str, Path]:
        return {"path": Path(options["path"])}

    def __call__(self, predictions: Sequence[Sequence[int]], example: Any) -> list[float]:
        return [self._value] * len(predictions)


class Waits:
    """Does not answer until the test lets it: as a person at a desk."""

    def __init__(self, *, folder: str) -> None:
        self._folder = Path(folder)

    def __call__(self, predictions: Sequence[Sequence[int]], example: Any) -> list[float]:
        number = predictions[0][1]
        (self._folder / f"asked-{number}").touch()
        while not (self._folder / f"answer-{number}").exists():
            time.sleep(0.01)
        return [float(tokens[-1]) for tokens in predictions]
