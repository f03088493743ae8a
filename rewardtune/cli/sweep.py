"""``rewardtune sweep``: rows of settings over one run config, some seeds each, and a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

STOPPED = 3


def sweep(
    path: Annotated[Path, typer.Argument(metavar="SWEEP", help="The sweep's TOML file.")],
    num_jobs: Annotated[int, typer.Option("--jobs", min=1, help="Runs at a time.")] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs and the samples they draw.")
    ] = False,
) -> None:
    """Tune rows of settings with some seeds each: prints a table with standard errors.

    runs/SWEEP/ gets every run, records.jsonl, table.md and curves.png. A sweep that was stopped
    goes on when it is started again.
    """
    from rewardtune.sweep.config import load_sweep

    loaded = load_sweep(path)
    if dry_run:
        from rewardtune.sweep.listing import listing
        from rewardtune.sweep.record import finished_runs

        typer.echo(listing(loaded, finished_runs(loaded)), nl=False)
        return
    from rewardtune.sweep.plot import draw_sweep
    from rewardtune.sweep.sweep import run_sweep
    from rewardtune.sweep.table import sweep_table

    records = run_sweep(loaded, num_jobs=num_jobs)
    if records is None:
        typer.echo(f"stopped; the same command continues {loaded.directory}", err=True)
        raise typer.Exit(STOPPED)
    table = sweep_table(loaded, records)
    (loaded.directory / "table.md").write_text(table, encoding="utf-8")
    draw_sweep(loaded, records, loaded.directory / "curves.png")
    typer.echo(table, nl=False)
