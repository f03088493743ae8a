"""``rewardtune pretrain`` of a stage I."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console

from rewardtune.run.log import LOG_NAME, TENSORBOARD_NAME, CombinedLog, JsonLinesLog, TensorBoardLog
from rewardtune.run.progress import LiveLine, PlainLines
from rewardtune.stage_one.config import StageOneRunConfig, load_stage_one_config

STOPPED = 3


def pretrain_stage_one(
    path: Path, overrides: Sequence[str], *, dry_run: bool = False, fork: bool = False
) -> None:
    """Train what ``path`` describes and print where it lies and how good it is."""
    config = load_stage_one_config(path, overrides)
    if dry_run:
        typer.echo(json.dumps(_derived(config), indent=1))
        return
    from rewardtune.stage_one.training import train_stage_one

    with contextlib.closing(_log(config)) as log:
        result = train_stage_one(config, log, fork=fork)
    if not result.is_finished:
        typer.echo(f"stopped; the same command continues {result.directory}", err=True)
        raise typer.Exit(STOPPED)
    typer.echo(json.dumps({"stage_one": str(result.path), **result.metrics}, indent=1))


def _log(config: StageOneRunConfig) -> CombinedLog:
    operations, console = config.operations, Console(stderr=True)
    watched = LiveLine if operations.progress and console.is_terminal else PlainLines
    return CombinedLog(
        [
            JsonLinesLog(operations.directory / LOG_NAME),
            TensorBoardLog(operations.directory / TENSORBOARD_NAME),
            watched(console, title="stage one", num_steps=config.training.num_steps),
        ]
    )


def _derived(config: StageOneRunConfig) -> dict[str, int]:
    network, training = config.network, config.training
    return {
        "pictures_per_step": training.batch_size,
        "pictures_total": training.batch_size * training.num_steps,
        "patches": (network.input_size // network.patch_size) ** 2,
        "codes": network.code_length,
    }
