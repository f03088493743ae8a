"""The commands of whoever runs a run: look at it, steer it, submit it to a cluster."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from rewardtune.cluster.control.record import DRIVER_NAME, NotLive, read_driver_record
from rewardtune.cluster.control.status_view import letters_view, live_view, resting_view
from rewardtune.run.run_state import read_run_state
from rewardtune.run.summary import NoRun, RunSummary, find_run, stored_config, summarise

if TYPE_CHECKING:
    from rewardtune.cluster.control.client import ControlClient

WATCH_SECONDS = 1.0
_NOT_LIVE = "not_live"

Run = Annotated[str, typer.Argument(help="The run's directory, or its name below runs/.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


def add_operator_commands(app: typer.Typer) -> None:
    for command in (status, drain, pause, resume, checkpoint, dead_letters, explain, submit):
        app.command()(command)
    scale = typer.Typer(no_args_is_help=True, help="Change how many of a service there are.")
    scale.command("reward-workers")(scale_reward_workers)
    app.add_typer(scale, name="scale")


def status(
    run: Run,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Until the run ends.")] = False,
) -> None:
    """Show a run: live from its driver, or else what its directory tells."""
    directory = find_run(run)
    console = Console()
    if watch and as_json:
        while isinstance(found := _status(directory), dict):
            typer.echo(json.dumps(found))
            time.sleep(WATCH_SECONDS)
    elif watch:
        with Live(console=console, auto_refresh=False) as live:
            while isinstance(found := _status(directory), dict):
                live.update(live_view(found), refresh=True)
                time.sleep(WATCH_SECONDS)
    else:
        found = _status(directory)
    if isinstance(found, dict):
        if as_json:
            typer.echo(json.dumps(found))
        else:
            console.print(live_view(found))
        return
    if (directory / DRIVER_NAME).exists():
        # A run that ended in good order has none: this one did not, or is out of reach.
        typer.echo(str(found), err=True)
    told = read_run_state(directory)
    try:
        summary: RunSummary | None = summarise(directory)
    except NoRun:
        if told is None:
            raise
        summary = None  # refused before there was a run
    if not as_json:
        console.print(resting_view(summary, told, run=directory.resolve().name))
        return
    # One that was killed says that it runs, but nobody drives it.
    ended = asdict(told) if told is not None and told.has_ended else {"state": _NOT_LIVE}
    typer.echo(json.dumps({**(asdict(summary) if summary is not None else {}), **ended}))


def drain(
    run: Run,
    wait: Annotated[bool, typer.Option("--wait", help="Return once the run has ended.")] = False,
    for_restart: Annotated[
        bool,
        typer.Option(
            "--for-restart",
            help="This machine goes away: a driver on it ends as failed, so that what started it "
            "tries again.",
        ),
    ] = False,
) -> None:
    """End a run in good order: checkpoint first. The command that started it continues it."""
    with _driver(run) as (directory, client):
        host = read_driver_record(directory).host
        if for_restart and host != socket.gethostname():
            # Of a pod that is cleared away when its successor drives the run already.
            raise NotLive(f"the driver of {directory} is on {host}, which does not go away with us")
        client.drain(for_restart=for_restart)
    if not wait:
        typer.echo(f"{directory}: draining; rewardtune status --watch shows when it has ended")
        return
    while isinstance(_status(directory), dict):
        time.sleep(WATCH_SECONDS)
    told = read_run_state(directory)
    typer.echo(f"{directory}: {'ended' if told is None else told.line}")


def pause(run: Run) -> None:
    """No new draw and no new step until resume."""
    with _driver(run) as (directory, client):
        client.pause()
    typer.echo(f"{directory}: paused; rewardtune resume {run}")


def resume(run: Run) -> None:
    """Go on after pause, or after the run paused itself."""
    with _driver(run) as (directory, client):
        client.resume()
    typer.echo(f"{directory}: resumed")


def checkpoint(run: Run) -> None:
    """Write a checkpoint after the step that is being taken."""
    with _driver(run) as (directory, client):
        client.checkpoint()
    typer.echo(f"{directory}: a checkpoint follows the step that is being taken")


def scale_reward_workers(
    count: Annotated[int, typer.Argument(min=0, help="How many there are to be inside Ray.")],
    run: Annotated[str, typer.Option("--run", help="The run's directory or name.")],
) -> None:
    """Change the reward workers inside Ray. Those that go finish what they score."""
    with _driver(run) as (directory, client):
        previous = client.scale_reward_workers(count)
    typer.echo(f"{directory}: {count} reward workers inside Ray, {previous} before")


def dead_letters(run: Run, as_json: AsJson = False) -> None:
    """Groups that nobody could score, and why."""
    with _driver(run) as (_, client):
        letters, total = client.dead_letters()
    if as_json:
        typer.echo(json.dumps(letters))
    else:
        Console().print(letters_view(letters, total))


def explain(
    run: Run,
    ordinal: Annotated[int, typer.Argument(min=0, help="Index of the group in the run.")],
    as_json: AsJson = False,
) -> None:
    """Say where a group is: drawn, queued, leased, scored, trained on, invalid."""
    from rewardtune.cluster.driver.whereabouts import find_stored_group

    found: dict[str, Any]
    try:
        with _driver(run) as (_, client):
            found = client.explain(ordinal)
    except NotLive as error:
        typer.echo(f"{error}; as the newest checkpoint has it:", err=True)
        directory = find_run(run)
        found = asdict(find_stored_group(ordinal, stored_config(directory), directory=directory))
    if as_json:
        typer.echo(json.dumps(found))
    else:
        word = found["whereabouts"].replace("_", " ")
        typer.echo(f"group {ordinal} of batch {found['batch']}: {word}: {found['detail']}")


def submit(
    config: Annotated[Path | None, typer.Argument(help="The run's TOML file.")] = None,
    address: Annotated[str, typer.Option(help="Of Ray's dashboard.")] = "http://127.0.0.1:8265",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="key=value over the file's.")
    ] = None,
    working_dir: Annotated[
        Path | None, typer.Option(help="Code to run with, instead of what is installed there.")
    ] = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Return once it is submitted.")
    ] = False,
    stop: Annotated[str | None, typer.Option(help="Stop this job; it checkpoints first.")] = None,
    follow: Annotated[str | None, typer.Option(help="Show this job until it ends.")] = None,
) -> None:
    """Run tune as a job of a Ray cluster; follow it, and exit as it does.

    Ctrl-C lets go of the job, which runs on. The same command after a stop continues the run.
    """
    from rewardtune.cluster.submit import Cluster

    if sum(given is not None for given in (config, stop, follow)) != 1:
        raise ValueError("submit needs one of: a run's TOML file, --stop JOB, --follow JOB")
    cluster = Cluster.at(address)
    if stop is not None:
        typer.echo(f"job {stop}: {cluster.stop(stop)}")
        return
    if follow is not None:
        job = follow
    else:
        assert config is not None
        job = cluster.submit(config, overrides or (), working_dir=working_dir)
        typer.echo(f"submitted as {job}", err=True)
    if no_wait:
        typer.echo(job)
        return
    try:
        code = cluster.follow(job, write=lambda text: typer.echo(text, nl=False))
    except KeyboardInterrupt:
        again = f"rewardtune submit --address {address}"
        typer.echo(
            f"\n{job} runs on: {again} --follow {job}, or --stop {job}",
            err=True,
        )
        raise typer.Exit(130) from None
    raise typer.Exit(code)


@contextmanager
def _driver(run: str) -> Iterator[tuple[Path, ControlClient]]:
    from rewardtune.cluster.control.client import ControlClient

    directory = find_run(run)
    with ControlClient.of_run(directory) as client:
        yield directory, client


def _status(directory: Path) -> dict[str, Any] | NotLive:
    """Of the driver, or why there is none."""
    from rewardtune.cluster.control.client import ControlClient

    try:
        with ControlClient.of_run(directory) as client:
            return client.status()
    except NotLive as error:
        return error
