"""A run as people watch it: a live line on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_SMOOTHING = 0.9
"""Share of the past in every shown figure: single steps jump."""
_AS_IT_IS = ("step", "staleness")
_BAR_WIDTH = 30
_TIME_WIDTH = 24
_NUM_PLAIN_LINES = 100
"""About as many lines does a whole run print where there is no terminal."""
_PHASES = {
    "wait": "red",
    "sample": "cyan",
    "score": "magenta",
    "load": "blue",
    "learn": "green",
    "exchange": "bright_green",
    "publish": "yellow",
    "checkpoint": "bright_black",
    "other": "white",
}
_HEADLINE = ("map", "ar100", "pq", "colour_reward", "psnr", "reward")
"""Of an evaluation's metrics, those that fit into a line."""


class LiveLine:
    """Two lines that stay in place: how far and how well, and where the time goes."""

    def __init__(self, console: Console, *, title: str, num_steps: int) -> None:
        self._title = title
        self._num_steps = num_steps
        self._figures = _Smoothed()
        self._clock = _Clock(num_steps)
        self._step = 0
        self._live = Live(console=console, refresh_per_second=4)

    def step(self, record: Mapping[str, float]) -> None:
        self._step = int(record["step"])
        self._figures.add(record)
        self._clock.add(self._step)
        self._show()

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        self._live.console.print(f"step {step}: {_headline(metrics)}", highlight=False)

    def message(self, text: str) -> None:
        self._live.console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        self._live.stop()

    def _show(self) -> None:
        line = Table.grid(padding=(0, 1))
        line.add_row(
            self._title,
            ProgressBar(total=self._num_steps, completed=self._step, width=_BAR_WIDTH),
            f"{self._step}/{self._num_steps}",
            self._clock.left(),
        )
        words = " · ".join(_words(self._figures.values))
        self._live.start()  # once there is something to show; later calls do nothing
        self._live.update(Group(line, Text(words), _time_bar(self._figures.shares())))


class PlainLines:
    """A line every so many steps, for logs that are kept."""

    def __init__(self, console: Console, *, title: str, num_steps: int) -> None:
        self._console = console
        self._title = title
        self._num_steps = num_steps
        self._figures = _Smoothed()
        self._clock = _Clock(num_steps)
        self._printed: int | None = None

    def step(self, record: Mapping[str, float]) -> None:
        step = int(record["step"])
        self._figures.add(record)
        self._clock.add(step)
        every = max(1, self._num_steps // _NUM_PLAIN_LINES)
        if self._printed is None or step >= self._printed + every or step == self._num_steps:
            self._printed = step
            shares = self._figures.shares()
            parts = [
                f"{self._title} {step}/{self._num_steps}",
                *_words(self._figures.values),
                " ".join(f"{phase} {share:.0%}" for phase, share in shares.items()),
                self._clock.left(),
            ]
            self._print(" · ".join(part for part in parts if part))

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        self._print(f"step {step}: {_headline(metrics)}")

    def message(self, text: str) -> None:
        self._print(text)

    def close(self) -> None:
        """Every line is complete when it is printed."""

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)


class _Smoothed:
    """Moving means of a run's figures, by name."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        """Those of the newest record and no others: an earlier step's would be taken for its."""
        self._means: dict[str, float] = {}

    def add(self, record: Mapping[str, float]) -> None:
        self.values = {name: self._shown(name, value) for name, value in record.items()}

    def _shown(self, name: str, value: float) -> float:
        if not math.isfinite(value):
            return value
        past = value if name in _AS_IT_IS else self._means.get(name, value)
        self._means[name] = _SMOOTHING * past + (1 - _SMOOTHING) * value
        return self._means[name]

    def shares(self) -> dict[str, float]:
        """The share of a step's time that each phase takes, of those that are known."""
        spent = {phase: self.values.get(f"seconds_{phase}", 0.0) for phase in _PHASES}
        total = sum(spent.values())
        return {phase: value / total for phase, value in spent.items() if value > 0.005 * total}


class _Clock:
    """How long the remaining steps take, by the mean of those seen in this start."""

    def __init__(self, num_steps: int) -> None:
        self._num_steps = num_steps
        self._first: tuple[int, float] | None = None
        self._last: tuple[int, float] = (0, 0.0)

    def add(self, step: int) -> None:
        self._last = (step, time.monotonic())
        self._first = self._first or self._last

    def left(self) -> str:
        step, now = self._last
        if self._first is None or step == self._first[0]:
            return ""
        seconds = (now - self._first[1]) / (step - self._first[0]) * (self._num_steps - step)
        minutes, seconds = divmod(round(seconds), 60)
        hours, minutes = divmod(int(minutes), 60)
        return f"{hours}:{minutes:02d}:{seconds:02d} left"


def _words(values: Mapping[str, float]) -> list[str]:
    """The figures worth a place in the line, of those that a run has."""
    words = []
    if "reward" in values:
        words.append(f"reward {values['reward']:.3f}")
    if "loss" in values:
        words.append(f"loss {values['loss']:.4f}")
    if "samples_per_second" in values:
        words.append(f"{values['samples_per_second']:.0f} samples/s")
    if "staleness" in values:
        words.append(f"staleness {values['staleness']:.0f}")
    return words


def _headline(metrics: Mapping[str, float]) -> str:
    shown = {name: metrics[name] for name in _HEADLINE if name in metrics} or metrics
    return " · ".join(f"{name} {value:.4f}" for name, value in shown.items())


def _time_bar(shares: Mapping[str, float]) -> Text:
    """Where a step's time goes: coloured blocks, then the same in numbers."""
    bar = Text()
    drawn, total = 0, 0.0
    for phase, share in shares.items():
        total += share
        end = round(total * _TIME_WIDTH)
        bar.append("█" * (end - drawn), style=_PHASES[phase])
        drawn = end
    for phase, share in shares.items():
        bar.append(f" {phase} ", style=_PHASES[phase])
        bar.append(f"{share:.0%}")
    return bar


@contextmanager
def counting(title: str, *, console: Console | None = None) -> Iterator[Callable[[int, int], None]]:
    """A bar for work that counts what is done and what there is; nothing off a terminal."""
    console = console or Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
