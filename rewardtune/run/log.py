"""What a run reports: to a JSONL file, to TensorBoard, and to whoever is watching."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from rich.console import Console

from rewardtune.config.run_config import RunConfig
from rewardtune.run.progress import LiveLine, PlainLines

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOG_NAME = "log.jsonl"
TENSORBOARD_NAME = "tensorboard"


class RunLog(Protocol):
    """Hears of every step that is to be reported, every evaluation, and what else happens."""

    def step(self, record: Mapping[str, float]) -> None:
        """Figures of one step; ``record["step"]`` counts batches consumed, from 1."""
        ...

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Holdout metrics of the policy after ``step`` batches."""
        ...

    def message(self, text: str) -> None: ...

    def close(self) -> None: ...


def open_run_log(config: RunConfig, num_steps: int, *, console: Console | None = None) -> RunLog:
    """The three logs of a run in one. Nothing is written before there is something to say.

    Args:
        config: its operations say where, and whether to show a live line.
        num_steps: where the run ends, for the time that is left.
        console: where people watch; by default stderr.
    """
    operations = config.operations
    console = console or Console(stderr=True)
    is_live = operations.progress and console.is_terminal
    watched = LiveLine if is_live else PlainLines
    return CombinedLog(
        [
            JsonLinesLog(operations.directory / LOG_NAME),
            TensorBoardLog(operations.directory / TENSORBOARD_NAME),
            watched(console, title=config.mode, num_steps=num_steps),
        ]
    )


class CombinedLog:
    """Passes everything on to several logs."""

    def __init__(self, logs: Sequence[RunLog]) -> None:
        self._logs = tuple(logs)

    def step(self, record: Mapping[str, float]) -> None:
        for log in self._logs:
            log.step(record)

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        for log in self._logs:
            log.evaluation(step, metrics)

    def message(self, text: str) -> None:
        for log in self._logs:
            log.message(text)

    def close(self) -> None:
        with contextlib.ExitStack() as stack:  # all of them, even if one cannot
            for log in self._logs:
                stack.callback(log.close)


class JsonLinesLog:
    """One JSON object per line, ``kind`` first: step, evaluation or message.

    A run that is taken up again appends; what it does a second time stands there twice, and
    ``read_run_log`` takes the later one. Numbers that are not finite are written as null.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    def step(self, record: Mapping[str, float]) -> None:
        self._write({"kind": "step", **_plain(record)})

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        self._write({"kind": "evaluation", "step": step, **_plain(metrics)})

    def message(self, text: str) -> None:
        self._write({"kind": "message", "text": text})

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, record: Mapping[str, Any]) -> None:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            is_torn = _ends_within_a_line(self._path)
            self._file = self._path.open("a", encoding="utf-8", buffering=1)
            if is_torn:
                self._file.write("\n")
        self._file.write(json.dumps(record) + "\n")


class TensorBoardLog:
    """The same figures as curves: ``train/``, ``time/`` and ``holdout/``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._writer: SummaryWriter | None = None

    def step(self, record: Mapping[str, float]) -> None:
        step = int(record["step"])
        writer = self._opened(step)
        for name, value in record.items():
            if name != "step":
                is_time = name.startswith("seconds") or name.endswith("_per_second")
                writer.add_scalar(f"{'time' if is_time else 'train'}/{name}", value, step)

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        writer = self._opened(step)
        for name, value in metrics.items():
            writer.add_scalar(f"holdout/{name}", value, step)

    def message(self, text: str) -> None:
        """Curves have no place for it."""

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _opened(self, step: int) -> SummaryWriter:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # Hides what an earlier start wrote of the steps that this one does again.
            self._writer = SummaryWriter(str(self._directory), purge_step=step)
        return self._writer


@dataclass(frozen=True, slots=True)
class RunRecords:
    """A run's log as it was read back; each list in the order of steps."""

    steps: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]


def read_run_log(path: Path) -> RunRecords:
    """Read a JSONL log, each step once: the last time that it was done.

    A last line that was cut off is left out.

    Raises:
        FileNotFoundError: there is no log.
    """
    found: dict[str, dict[int, dict[str, Any]]] = {"step": {}, "evaluation": {}}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue  # the process was killed while it wrote
        kind = record.pop("kind")
        if kind in found:
            record["step"] = int(record["step"])
            found[kind][record["step"]] = record
    return RunRecords(
        steps=[found["step"][step] for step in sorted(found["step"])],
        evaluations=[found["evaluation"][step] for step in sorted(found["evaluation"])],
    )


def _plain(figures: Mapping[str, float]) -> dict[str, float | int | None]:
    plain: dict[str, float | int | None] = {}
    for name, value in figures.items():
        number = int(value) if name == "step" else float(value)
        plain[name] = number if math.isfinite(number) else None
    return plain


def _ends_within_a_line(path: Path) -> bool:
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) != b"\n"
