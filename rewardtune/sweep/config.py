"""What a sweep can be told: rows of settings over one run config, and how rows are compared."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, ValidationError, model_validator

from rewardtune.config.config_file import load_config
from rewardtune.config.run_config import ConfigError, RunConfig, Section
from rewardtune.shipped import find_config

Settings = tuple[str, ...]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_OWN_KEYS = ("seed", "operations.directory")


class UntilConfig(Section):
    """More seeds for rows whose difference is not resolved yet."""

    pairs: tuple[tuple[str, str], ...] = Field(min_length=1)
    """Rows to tell apart; one in a group is named ``group/row``."""

    max_num_seeds: PositiveInt = 10
    """Where a row stops, resolved or not."""


class SweepConfig(Section):
    """A sweep as its TOML file says it."""

    config: Path
    """The tuning run that every row changes; relative to the current directory."""

    metrics: Annotated[tuple[str, ...], Field(min_length=1)]
    """What the table shows, by the names that ``evaluate`` prints; the first is compared and drawn.
    ``rollout_reward`` is the mean reward of the training rollouts over a run's last 20 steps."""

    data: Literal["validation", "holdout"] = "validation"
    """On which data set of the run's config a policy is measured, by greedy decoding."""

    policy: Literal["last", "best"] = "last"
    """The one measured: after the last step, or the one that was best on the holdout set."""

    num_seeds: PositiveInt = 3
    """Seeds 0, 1, ... of every row."""

    set: Settings = ()
    """Of all rows: ``key=value`` as ``--set`` takes it."""

    rows: dict[str, Settings | dict[str, Settings]] = Field(min_length=1)
    """By row the settings that make it; or groups of rows, each a table of its own."""

    until: UntilConfig | None = None

    @model_validator(mode="after")
    def _can_have_more(self) -> Self:
        if self.until is not None and self.until.max_num_seeds < self.num_seeds:
            raise ValueError(
                f"until.max_num_seeds = {self.until.max_num_seeds} is less than num_seeds = "
                f"{self.num_seeds}"
            )
        return self


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    """``row``, or ``group/row``."""
    config: RunConfig
    """Of its run with seed 0."""
    runs_of: str
    """Whose runs it shows: its own, or those of the same row in an earlier group."""

    @property
    def group(self) -> str:
        """Empty where there are no groups."""
        return self.name.rpartition("/")[0]

    @property
    def label(self) -> str:
        """Its name within the group."""
        return self.name.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Sweep:
    settings: SweepConfig
    directory: Path
    rows: Mapping[str, Row]
    """By name, in the order of the file."""

    def runs_of(self, name: str) -> str:
        return self.rows[name].runs_of

    @property
    def distinct(self) -> list[str]:
        """Rows that have runs of their own."""
        return [name for name, row in self.rows.items() if row.runs_of == name]

    def run_config(self, row: str, seed: int) -> RunConfig:
        """One run, in its place below the sweep's directory."""
        config = self.rows[row].config
        operations = config.operations.model_copy(
            update={"directory": self.directory / row / str(seed)}
        )
        return config.model_copy(update={"seed": seed, "operations": operations})

    def key(self, row: str, seed: int) -> str:
        """Hash of what a run's figures depend on, as far as the configs say it."""
        return _key(self.run_config(row, seed), self.settings)


def load_sweep(path: Path) -> Sweep:
    """Read a sweep and every row's config; nothing but configs is opened.

    Raises:
        ConfigError: the file, a row or a row's config cannot be run.
    """
    settings = _read(path)
    _check_own_keys(path, settings.set, where="set")
    base = load_config(settings.config, settings.set)
    if base.mode != "tune":
        raise ConfigError(
            f"{path}: config = {settings.config} has mode = '{base.mode}': a sweep needs one with "
            "mode = 'tune'"
        )
    if getattr(base.data, settings.data) is None:
        raise ConfigError(
            f"{path}: data = '{settings.data}' but {settings.config} has no data.{settings.data}"
        )
    rows: dict[str, Row] = {}
    for name, row_settings in _named(path, settings):
        if not row_settings:
            raise ConfigError(f"{path}: row '{name}' changes nothing: give it a setting")
        _check_own_keys(path, row_settings, where=f"row '{name}'")
        try:
            config = load_config(settings.config, (*settings.set, *row_settings))
        except ConfigError as error:
            raise ConfigError(f"{path}: row '{name}': {error}") from error
        if config.mode != "tune":
            raise ConfigError(f"{path}: row '{name}' has mode = '{config.mode}': rows are tuned")
        row = Row(name, config, runs_of=name)
        same = next((r for r in rows.values() if _same(r.config, config, settings)), None)
        if same is not None and same.group == row.group:
            raise ConfigError(f"{path}: rows '{same.name}' and '{name}' are the same run: drop one")
        rows[name] = row if same is None else Row(name, config, runs_of=same.runs_of)
    _check_pairs(path, settings, rows)
    return Sweep(settings, Path("runs") / path.stem, rows)


def _read(path: Path) -> SweepConfig:
    try:
        values = tomllib.loads(find_config(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"sweep {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"sweep {path} is not TOML: {error}") from error
    try:
        # By way of JSON as for a run's config: strict, but paths are strings.
        return SweepConfig.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        problem = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        key = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = f"unknown key: there are {', '.join(SweepConfig.model_fields)}"
        raise ConfigError(f"{path}: {key}: {message}" if key else f"{path}: {message}") from error


def _named(path: Path, settings: SweepConfig) -> Iterator[tuple[str, Settings]]:
    for name, entry in settings.rows.items():
        grouped = entry if isinstance(entry, dict) else {}
        for part in (name, *grouped):
            if not _NAME.fullmatch(part):
                raise ConfigError(
                    f"{path}: '{part}' is to name a folder: use letters, digits, '_', '-' and '.'"
                )
        if isinstance(entry, dict):
            yield from ((f"{name}/{row}", values) for row, values in entry.items())
        else:
            yield name, entry


def _check_own_keys(path: Path, settings: Settings, *, where: str) -> None:
    for setting in settings:
        key = setting.partition("=")[0].strip()
        if key in _OWN_KEYS:
            raise ConfigError(f"{path}: {where} sets {key}, which the sweep does itself")


def _check_pairs(path: Path, settings: SweepConfig, rows: Mapping[str, Row]) -> None:
    for pair in settings.until.pairs if settings.until else ():
        for name in pair:
            if name not in rows:
                raise ConfigError(
                    f"{path}: until.pairs names '{name}', which is no row: {', '.join(rows)}"
                )
        if rows[pair[0]].runs_of == rows[pair[1]].runs_of:
            raise ConfigError(f"{path}: until.pairs compares '{pair[0]}' with itself")


def _same(one: RunConfig, other: RunConfig, settings: SweepConfig) -> bool:
    return _key(one, settings) == _key(other, settings)


def _key(config: RunConfig, settings: SweepConfig) -> str:
    figures = {
        "identity": config.identity(),
        # Where things lie tells rows apart; what they hold is looked at when the sweep starts.
        "data": config.data.model_dump(mode="json"),
        "policy": config.policy.model_dump(mode="json"),
        "evaluation": config.evaluation.model_dump(mode="json"),
        "measured": [settings.data, settings.policy],
    }
    text = json.dumps(figures, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
