"""What a run's directory tells without torch and without the run: for ``status`` of one that rests.

Read only, and safe beside a live run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewardtune.config.run_config import RunConfig
from rewardtune.evaluation.history import History
from rewardtune.run.run_state import STATE_NAME

_CHECKPOINTS = "checkpoints/checkpoint-*/manifest.json"
"""A checkpoint exists if and only if its manifest does."""


class NoRun(ValueError):
    """There is no run there; the message is one line."""


@dataclass(frozen=True, slots=True)
class RunSummary:
    run: str
    directory: str
    num_steps: int
    checkpoint_step: int | None
    """Where the next start goes on."""
    num_starts: int
    is_finished: bool
    best: Mapping[str, float]
    """The best evaluation, its step among the metrics; empty if there is none."""
    last: Mapping[str, float]
    """The latest evaluation."""


@dataclass(frozen=True, slots=True)
class Ledgered:
    """What became of the groups that the newest checkpoint has consumed."""

    num_batches: int = 0
    invalid: frozenset[int] = frozenset()
    skipped: frozenset[int] = frozenset()


def find_run(text: str) -> Path:
    """A run's directory, given as itself or by the run's name below ``runs/``.

    Raises:
        NoRun: neither holds a run.
    """
    for path in (Path(text), Path("runs") / text):
        if any((path / name).is_file() for name in ("config.json", "driver.json", STATE_NAME)):
            return path
    raise NoRun(f"no run at {text}, nor at runs/{text}: give a run's directory, as its config says")


def stored_config(directory: Path) -> RunConfig:
    """As the last start pinned it.

    Raises:
        NoRun: no start got that far.
    """
    path = directory / "config.json"
    try:
        return RunConfig.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise NoRun(f"{directory} holds no run yet: it has no config.json") from None
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise NoRun(f"{path} is not a run's config ({reason}): another version wrote it") from None


def summarise(directory: Path) -> RunSummary:
    """Raises NoRun where no start got as far as writing its config."""
    config = stored_config(directory)
    history = History(directory, metric=config.evaluation.metric)
    terms = directory / "terms"
    step = _newest_checkpoint(directory)
    return RunSummary(
        run=directory.resolve().name,
        directory=str(directory),
        num_steps=config.learner.num_steps,
        checkpoint_step=step,
        num_starts=sum(path.name.isdigit() for path in terms.iterdir()) if terms.is_dir() else 0,
        # The policy is written after the last checkpoint.
        is_finished=step == config.learner.num_steps
        and (directory / "policy.safetensors").is_file(),
        best=history.best,
        last=history.evaluations[-1] if history.evaluations else {},
    )


def stored_ledger(directory: Path) -> Ledgered:
    """Nothing, if there is no checkpoint yet."""
    # One that is pruned while it is read is followed by a newer one.
    for _ in range(2):
        step = _newest_checkpoint(directory)
        if step is None:
            break
        path = directory / "checkpoints" / f"checkpoint-{step:08d}" / "state.json"
        try:
            state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        ledger = state["ledger"]
        return Ledgered(
            num_batches=ledger["num_batches"],
            invalid=frozenset(ledger["invalid"]),
            skipped=frozenset(ledger["skipped"]),
        )
    return Ledgered()


def _newest_checkpoint(directory: Path) -> int | None:
    names = (path.parent.name for path in directory.glob(_CHECKPOINTS))
    steps = (name.removeprefix("checkpoint-") for name in names)
    return max((int(step) for step in steps if step.isdigit()), default=None)
