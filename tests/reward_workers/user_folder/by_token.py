"""A user's task whose reward does what the first token of the first rollout says."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.example import Category, Dataset, Example
from rewardtune.datasets.frame import Framed
from rewardtune.datasets.shards.dataset import ShardDataset
from rewardtune.records import Group, Score, TokenTargets
from rewardtune.tasks.vocabulary import Vocabulary

HANG, SEGFAULT, KILL, EXIT, RAISE, NAN, SHORT = range(100, 107)
PRINT, SLEEP, FLOAT32, SPAWN, WAIT, UNPLUG = range(107, 113)
"""Below: the reward is the sum of the tokens."""
SLEEP_SECONDS = 0.2


class ByToken:
    name = "by_token"
    vocabulary = Vocabulary(task="by_token", size=200, max_tokens=3)
    score_rules: tuple[str, ...] = ()

    def __init__(self, options: Mapping[str, Any], *, categories: Sequence[Category]) -> None:
        self._scale = float(options.get("scale", 1.0))
        self._folder = Path(str(options.get("folder", ".")))
        if options.get("crash_at_start") and (self._folder / "crash").exists():
            os._exit(3)
        if options.get("drifts"):
            # As another version of some library would: not what the run's golden rewards say.
            self._scale += 1e-9 * len(list(self._folder.iterdir()))

    def target_tokens(self, framed: Framed, *, rng: np.random.Generator) -> NDArray[np.int32]:
        return np.array([1, 2, framed.example.image_id], dtype=np.int32)

    def score(self, decoded: Sequence[Sequence[int]], framed: Framed) -> Score:
        tokens_ST = np.array(decoded, dtype=np.int32)
        reward_S = self._scale * tokens_ST.sum(axis=1).astype(np.float64)
        match int(tokens_ST[0, 0]):
            case t if t == HANG:
                while True:
                    time.sleep(1)
            case t if t == SEGFAULT:
                ctypes.string_at(0)
            case t if t == KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            case t if t == EXIT:
                os._exit(7)
            case t if t == RAISE:
                raise KeyError("no such word\nand a second line")
            case t if t == NAN:
                reward_S[0] = np.nan
            case t if t == SHORT:
                reward_S = reward_S[:-1]
            case t if t == PRINT:
                print("x" * 1000)
                os.write(1, b"\0\0\0\1garbage")
                sys.stdout.flush()
            case t if t == SLEEP:
                time.sleep(SLEEP_SECONDS)
            case t if t == FLOAT32:
                reward_S = reward_S.astype(np.float32)
            case t if t == SPAWN:
                child = subprocess.Popen(["sleep", "1000"], close_fds=False)
                (self._folder / "spawned").write_text(str(child.pid))
                time.sleep(1000)
            case t if t == WAIT:
                # Until the test lets it go on.
                (self._folder / f"begun-{tokens_ST[0, 1]}").touch()
                while not (self._folder / f"go-{tokens_ST[0, 1]}").exists():
                    time.sleep(0.01)
            case t if t == UNPLUG:
                # As if the disk went away: no example can be read from now on.
                ShardDataset.example = _unreadable  # type: ignore[method-assign]
            case _:
                pass
        return Score(reward_S=reward_S)

    def decode(self, tokens_ST: NDArray[np.int32], framed: Framed) -> list[list[int]]:
        rows: list[list[int]] = tokens_ST.tolist()
        return rows

    def token_targets(self, group: Group, score: Score) -> TokenTargets | None:
        return None

    def predict(
        self,
        decoded: Sequence[Sequence[int]],
        log_probs_T: NDArray[np.float32],
        probe_log_probs_TQ: NDArray[np.float32],
        framed: Framed,
        *,
        score_rule: str,
    ) -> list[dict[str, Any]]:
        return []

    def evaluate(
        self, results: Sequence[Mapping[str, Any]], dataset: Dataset, *, indices: Sequence[int]
    ) -> dict[str, float]:
        return {}


def _unreadable(self: ShardDataset, index: int) -> Example:
    raise OSError("Input/output error")


TASK = ByToken
