"""``rewardtune reward``: look at a reward before a run pays for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

BROKEN = 1
"""Exit code of a check that found a rule broken."""

app = typer.Typer(
    no_args_is_help=True,
    help="Look at a reward before a run pays for it.",
    pretty_exceptions_enable=False,
)


@app.command()
def check(
    task: Annotated[
        str, typer.Argument(help="A task, or the (dotted) name of a module of your own with one.")
    ],
    dataset: Annotated[Path, typer.Option(help="Folder of a data set.")],
    num: Annotated[int, typer.Option(min=1, help="Examples to check on, the first.")] = 50,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="The reward's own key=value; may be repeated."),
    ] = None,
    custom: Annotated[
        str | None,
        typer.Option("--reward", help="Check this module:function, not the task's own reward."),
    ] = None,
    num_samples: Annotated[int, typer.Option(min=2, help="Predictions of a group.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of the made predictions.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Score made predictions, and fail where a rule of good rewards is broken.

    Perfect predictions, shuffled and doubled ones, ones with mistakes, random and empty ones:
    what the reward makes of each, beside the official metric.
    """
    from rewardtune.cli.task_options import task_options
    from rewardtune.datasets.shards.dataset import open_dataset
    from rewardtune.reward_lab.check import check_reward
    from rewardtune.reward_lab.probes import probe_for
    from rewardtune.reward_lab.table import report_json, report_view
    from rewardtune.run.progress import counting

    opened = open_dataset(dataset)
    probe = probe_for(task, opened, options=task_options(option or ()), custom=custom)
    with counting("checking") as progress:
        report = check_reward(
            probe,
            opened,
            indices=range(min(num, len(opened))),
            num_samples=num_samples,
            seed=seed,
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(report_json(report), indent=1, allow_nan=False))
    else:
        Console().print(report_view(report))
    for violation in report.violations:
        typer.echo(f"error: {violation}", err=True)
    if report.violations:
        raise typer.Exit(BROKEN)
