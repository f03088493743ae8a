"""From a TOML file and ``--set key=value`` to a RunConfig, or one line that says what to fix."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rewardtune.config.run_config import ConfigError, RunConfig
from rewardtune.shipped import ROOT, find_config
from rewardtune.transport.queue.address import redacted, refuse_password

_TAG = "kind"
"""The key that says which of several sections a table is."""
_RENAMED = {"cluster.redis": "cluster.queue"}
"""Keys of earlier configs, which are refused by what they are called now."""


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read one run.

    Args:
        path: the TOML file, or the name of a shipped one (``rewardtune.shipped``); paths inside
            it are relative to the current directory.
        overrides: ``key=value`` with dotted keys and TOML values. A value that is not TOML is
            taken as a string, so ``compute.device=cuda`` needs no quotes; ``none`` takes the
            key out, back to its default.

    Raises:
        ConfigError: the file, an override or a combination cannot be run.
    """
    return parse_config(read_values(path, overrides), source=str(path))


def read_values(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A file's plain values with the overrides over them; a run has a directory of its name.

    Raises:
        ConfigError: the file or an override cannot be read.
    """
    try:
        values = tomllib.loads(find_config(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"config {path} cannot be read: {error.strerror}, neither from {Path.cwd()} nor among "
            f"the shipped ones in {ROOT / 'configs'}"
        ) from error
    except OSError as error:
        raise ConfigError(f"config {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} is not TOML: {redacted(str(error))}") from error
    for override in overrides:
        _set(values, override)
    operations = values.setdefault("operations", {})
    if isinstance(operations, dict):
        operations.setdefault("directory", f"runs/{path.stem}")
    return values


def parse_config(values: Mapping[str, Any], *, source: str) -> RunConfig:
    """Check plain values as a run; ``source`` names where they came from in errors.

    Raises:
        ConfigError: with the first problem found, unknown keys before all others.
    """
    try:
        # By way of JSON, because strictness there means TOML's own types: a path is a string
        # and a tuple an array, but "3" is no number and true no integer.
        config = RunConfig.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        line = f"{source}: {_explain(problems[0])}{more}"
        raise ConfigError(" ".join(line.split())) from error
    try:
        refuse_password(config.cluster.queue, key="cluster.queue")
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from error
    return config


def _set(values: dict[str, Any], override: str) -> None:
    key, equals, text = (part.strip() for part in override.partition("="))
    parts = key.split(".")
    if not equals or not all(re.fullmatch(r"[\w-]+", part) for part in parts):
        raise ConfigError(
            f"--set {redacted(override)}: write it as key=value, such as learner.num_steps=100"
        )
    table = values
    for depth, part in enumerate(parts[:-1], start=1):
        inner = table.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(
                f"--set {redacted(override)}: {'.'.join(parts[:depth])} is not a table"
            )
        table = inner
    if text == "none":
        table.pop(parts[-1], None)
    else:
        table[parts[-1]] = _value(override, text)


def _value(override: str, text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        if text and text[0] not in "\"'[{" and "\n" not in text:
            return text
        raise ConfigError(
            f"--set {redacted(override)}: the value is not TOML: {redacted(str(error))}"
        ) from error
    if list(parsed) != ["value"]:
        raise ConfigError(f"--set {redacted(override)!r}: write one key=value per --set")
    return parsed["value"]


def _explain(problem: ErrorDetails) -> str:
    path, siblings = _place(problem["loc"])
    key, kind, context = ".".join(path), problem["type"], problem.get("ctx", {})
    message = problem["msg"].removeprefix("Value error, ")
    value = _show(problem["input"])
    if kind == "extra_forbidden":
        if key in _RENAMED:
            return f"{key} = {value}: it is called {_RENAMED[key]} now, write that"
        table = f"[{'.'.join(path[:-1])}]" if len(path) > 1 else "the top level"
        hint = f"did you mean {nearest}? " if (nearest := _nearest_key(path)) else ""
        return f"unknown key {key} = {value}: {hint}keys of {table}: {', '.join(siblings)}"
    if kind == "missing":
        return f"{key} is missing: set it in the file or by --set {key}=..."
    if kind == "union_tag_not_found":
        return f"{key}.{_TAG} is missing: set it to one of {_tags(path)}"
    if kind == "union_tag_invalid":
        return f"{key}.{_TAG} = {_show(context['tag'])}: must be one of {_tags(path)}"
    if kind == "value_error" and isinstance(problem["input"], Mapping):
        # Found by a section about itself, so it names its keys: ours in full, others bare.
        return message if message.startswith(key) else f"[{key}] {message}"
    message = message.replace("Input should be", "must be").replace("an object", "a table")
    return f"{key} = {value}: {message}"


def _show(value: Any) -> str:
    text = redacted(json.dumps(value, default=str))
    return text if len(text) <= 80 else f"{text[:77]}..."


# What follows reads the valid keys off the models, so that they are listed nowhere else.


def _place(loc: Sequence[int | str]) -> tuple[list[str], list[str]]:
    """A pydantic location as the file's own key, with the keys that are valid beside it."""
    path: list[str] = []
    siblings: list[str] = []
    models: Sequence[type[BaseModel]] = (RunConfig,)
    is_name = False
    for part in loc:
        if is_name:  # the user's own, of one of several tables
            path.append(str(part))
            is_name = False
            continue
        chosen = [model for model in models if _tag(model) == part]
        if chosen and len(models) > 1:
            models = chosen
            continue
        path.append(str(part))
        siblings = [name for model in models for name in model.model_fields]
        is_name = any(_is_named(model, str(part)) for model in models)
        models = _sections(models, str(part))
    return path, siblings


def _is_named(model: type[BaseModel], field: str) -> bool:
    """Whether the field holds several tables, each under a name of the user's."""
    info = model.model_fields.get(field)
    return (
        info is not None and get_origin(info.annotation) is dict and any(_models(info.annotation))
    )


def _sections(models: Sequence[type[BaseModel]], field: str) -> list[type[BaseModel]]:
    """What kinds of table the field may hold; none if it holds a value."""
    found = [model.model_fields[field] for model in models if field in model.model_fields]
    return [section for info in found for section in _models(info.annotation)]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get(_TAG)
    return get_args(field.annotation)[0] if field else None


def _tags(path: Sequence[str]) -> str:
    models: Sequence[type[BaseModel]] = (RunConfig,)
    for part in path:
        models = _sections(models, part)
    return ", ".join(_show(_tag(model)) for model in models)


def _nearest_key(path: Sequence[str]) -> str | None:
    """The valid key most like an unknown one: its name elsewhere first, then its spelling."""
    key = ".".join(path)
    # Neither itself, valid under another kind, nor the table that it stands in.
    keys = [k for k in dict.fromkeys(_keys(RunConfig)) if not f"{key}.".startswith(f"{k}.")]
    elsewhere = [valid for valid in keys if valid.rpartition(".")[2] == path[-1]]
    found = difflib.get_close_matches(key, elsewhere, n=1, cutoff=0.0)
    found = found or difflib.get_close_matches(key, keys, n=1, cutoff=0.65)
    return found[0] if found else None


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        # Whose names are the user's, nobody can guess.
        for section in () if _is_named(model, name) else _models(field.annotation):
            yield from _keys(section, f"{prefix}{name}.")
