"""The command line: reads arguments, calls the Python functions of the same names.

Heavy libraries are imported by the commands that need them.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from rewardtune.cli import data as data_commands
from rewardtune.cli import reward as reward_command
from rewardtune.cli.ending import BAD_INPUT, FAILED, exit_by, exit_code, note_refusal
from rewardtune.cli.export import export
from rewardtune.cli.import_checkpoint import import_checkpoint
from rewardtune.cli.operator import add_operator_commands
from rewardtune.cli.redis_acl import redis_acl
from rewardtune.cli.reward_server import reward_server
from rewardtune.cli.reward_worker import reward_worker
from rewardtune.cli.score import score
from rewardtune.cli.sweep import sweep
from rewardtune.cli.task_options import task_options

if TYPE_CHECKING:
    from rewardtune.config.run_config import RunConfig
    from rewardtune.policies.draw import Decoding
    from rewardtune.run.result import RunResult

# Before torch is imported: idle threads that spin slow two processes on two cores several times.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# A bounded spin all the same: threads that sleep between two small operations cost a third of a
# training step (docs/decisions.md).
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

STOPPED = 3
"""Exit code of what a signal stopped before it had a result: the same command takes it up again.

Not of ``tune``, whose end others read: drained as it was told, it exits 0, and RUN/state.json
tells that from finished.
"""


class _Commands(TyperGroup):
    """Turns errors that are written for people into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except (ValueError, OSError, RuntimeError) as error:
            code = FAILED if isinstance(error, RuntimeError) else BAD_INPUT
            raise exit_by(error, code) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Tune vision models to the metric their users care about.",
)
app.add_typer(data_commands.app, name="data")
app.add_typer(reward_command.app, name="reward")
app.command()(export)
app.command()(reward_worker)
app.command()(reward_server)
app.command()(redis_acl)
app.command()(import_checkpoint)
app.command()(score)
app.command()(sweep)
add_operator_commands(app)

ConfigPath = Annotated[
    Path, typer.Argument(help="The run's TOML file, or the name of a shipped one.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="key=value over the file's; may be repeated.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check the config and print its derived sizes.")
]
Fork = Annotated[
    bool, typer.Option("--fork", help="Continue a run's checkpoint under a changed config.")
]
PolicyPath = Annotated[Path, typer.Argument(help="A policy, as pretrain and tune write it.")]
TaskName = Annotated[
    str | None, typer.Option("--task", help="By default the one that the policy was made for.")
]
TaskOptions = Annotated[
    list[str] | None, typer.Option("--option", help="The task's own key=value; may be repeated.")
]
ScoreRule = Annotated[
    str | None, typer.Option(help="How predictions are ranked, by the task's names.")
]
Temperature = Annotated[
    float | None, typer.Option(min=0.0, help="Sample instead of decoding greedily.")
]
TopP = Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Sample from the likeliest.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the draws, where decoding samples.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads of torch.")]


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        try:
            typer.echo(version("rewardtune"))
        except PackageNotFoundError:
            typer.echo("unknown: rewardtune is not installed, but run from its sources")
        raise typer.Exit


@app.callback()
def _rewardtune(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


@app.command()
def pretrain(
    config: ConfigPath, overrides: Overrides = None, dry_run: DryRun = False, fork: Fork = False
) -> None:
    """Train a policy by maximum likelihood on annotations, or a UViM codec (stage I).

    An interrupted run continues when it is started again.
    """
    from rewardtune.stage_one.config import is_stage_one

    if is_stage_one(config):
        from rewardtune.cli.stage_one import pretrain_stage_one

        pretrain_stage_one(config, overrides or (), dry_run=dry_run, fork=fork)
        return
    _run("pretrain", config, overrides or (), dry_run=dry_run, fork=fork)


@app.command()
def tune(
    config: ConfigPath,
    overrides: Overrides = None,
    dry_run: DryRun = False,
    fork: Fork = False,
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster to join, or 'auto'; by default Ray is started here."),
    ] = None,
    is_local: Annotated[
        bool, typer.Option("--local", help="Everything in this process, without Ray.")
    ] = False,
    as_job: Annotated[
        bool,
        typer.Option(
            "--as-job",
            help="For what tries again whatever failed: bad input, which no retry mends, exits 0.",
        ),
    ] = False,
) -> None:
    """Tune a pretrained policy to its task's reward.

    Samplers, learner and reward workers are Ray actors, unless --local. The weights come out the
    same. An interrupted run continues when it is started again. Exits 0 when it has finished or
    was drained, 2 for bad input, 1 for anything else; RUN/state.json and status tell which.
    """
    if address is not None and is_local:
        raise ValueError("--address needs Ray and --local does without: give one of them")
    if address is not None:
        overrides = [*(overrides or ()), f'cluster.address="{address}"']
    _run(
        *("tune", config, overrides or ()),
        dry_run=dry_run,
        fork=fork,
        is_local=is_local,
        is_job=as_job,
    )


@app.command()
def evaluate(
    policy: PolicyPath,
    data: Annotated[Path, typer.Option(help="Folder of a data set.")],
    task: TaskName = None,
    option: TaskOptions = None,
    score_rule: ScoreRule = None,
    num_examples: Annotated[int | None, typer.Option(min=1, help="The first so many.")] = None,
    output: Annotated[Path | None, typer.Option(help="File for the official results.")] = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = 0,
    threads: Threads = 2,
) -> None:
    """Measure a policy on a data set: prints the task's metrics as JSON.

    Where the reward weighs classes, it does so by how often they occur in this data set.
    """
    from rewardtune.datasets.shards.dataset import open_dataset
    from rewardtune.evaluation.evaluate import evaluate_policy
    from rewardtune.evaluation.predict import policy_for_data
    from rewardtune.json_file import write_json
    from rewardtune.run.progress import counting

    dataset = open_dataset(data)
    loaded = policy_for_data(
        policy, dataset, task=task, options=task_options(option or ()), threads=threads
    )
    with counting("evaluating") as progress:
        evaluation = evaluate_policy(
            loaded.policy,
            loaded.task,
            dataset,
            indices=range(min(num_examples or len(dataset), len(dataset))),
            score_rules=[score_rule] if score_rule else None,
            decoding=_decoding(temperature, top_p),
            seed=seed,
            view=loaded.view,
            progress=progress,
        )
    if output is not None:
        (results,) = evaluation.results.values()
        write_json(output, results)
    typer.echo(json.dumps(dict(evaluation.metrics), indent=1))


@app.command()
def predict(
    policy: PolicyPath,
    output: Annotated[Path, typer.Option(help="Folder for the pictures and results.json.")],
    data: Annotated[Path | None, typer.Option(help="Folder of a data set ...")] = None,
    images: Annotated[Path | None, typer.Option(help="... or of plain pictures.")] = None,
    task: TaskName = None,
    option: TaskOptions = None,
    score_rule: ScoreRule = None,
    min_score: Annotated[float, typer.Option(help="Draw boxes from this score on.")] = 0.0,
    num: Annotated[int | None, typer.Option(min=1, help="The first so many.")] = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = 0,
    threads: Threads = 2,
) -> None:
    """Draw what a policy sees, beside the annotation where there is one.

    Of plain pictures, results.json numbers images and classes from 1 and gives their names too.
    """
    from rewardtune.datasets.example import Dataset
    from rewardtune.datasets.shards.dataset import open_dataset
    from rewardtune.evaluation.predict import policy_for_data, policy_for_images, write_predictions
    from rewardtune.run.progress import counting

    if (data is None) == (images is None):
        raise ValueError("predict needs either --data or --images")
    options = task_options(option or ())
    dataset: Dataset
    if data is not None:
        dataset = open_dataset(data)
        loaded = policy_for_data(policy, dataset, task=task, options=options, threads=threads)
    else:
        assert images is not None
        loaded, dataset = policy_for_images(
            policy, images, task=task, options=options, threads=threads
        )
    with counting("predicting") as progress:
        count = write_predictions(
            loaded,
            dataset,
            output,
            indices=range(min(num or len(dataset), len(dataset))),
            score_rule=score_rule,
            min_score=min_score,
            decoding=_decoding(temperature, top_p),
            seed=seed,
            progress=progress,
        )
    typer.echo(f"{output}: {count} pictures and results.json")


@app.command()
def demo(
    task: Annotated[
        Literal["detection", "panoptic", "colorization", "captioning"],
        typer.Argument(help="What to tune for."),
    ] = "detection",
    scenes_seed: Annotated[
        int | None, typer.Option(min=1, help="Measure on scenes drawn afresh from this seed.")
    ] = None,
    directory: Annotated[
        Path | None, typer.Option(help="Folder for everything it makes; runs/demo_TASK.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The run to make; by default the task's own.")
    ] = None,
    overrides: Overrides = None,
    is_local: Annotated[
        bool, typer.Option("--local", help="Everything in this process, without Ray.")
    ] = False,
) -> None:
    """Tune a pretrained policy on scenes of handwritten digits and show what that changes."""
    from rewardtune.config.config_file import load_config
    from rewardtune.demo.demo import run_demo
    from rewardtune.demo.table import DEMOS
    from rewardtune.run import local

    start = local.tune
    if not is_local:
        from rewardtune.cluster.launch import tune_on_ray as start
    summary = run_demo(
        load_config(config or DEMOS[task].config, overrides or ()),
        tune=start,
        directory=directory or Path("runs") / f"demo_{task}",
        scenes_seed=scenes_seed,
    )
    if summary is None:
        raise typer.Exit(STOPPED)
    typer.echo(json.dumps(summary))


def _run(
    mode: Literal["pretrain", "tune"],
    path: Path,
    overrides: Sequence[str],
    *,
    dry_run: bool,
    fork: bool,
    is_local: bool = True,
    is_job: bool = False,
) -> None:
    from rewardtune.config.config_file import load_config

    try:
        config = load_config(path, overrides)
    except ValueError as error:
        is_shown = is_job and not is_local
        directory = None if dry_run else note_refusal(path, overrides, error, is_shown=is_shown)
        raise exit_by(error, exit_code(error, directory, is_job=is_job)) from None
    if config.mode != mode:
        raise ValueError(f"{path} has mode = '{config.mode}': start it by rewardtune {config.mode}")
    if dry_run:
        typer.echo(json.dumps(_derived(config), indent=1))
        return

    from rewardtune.run import local
    from rewardtune.run.log import open_run_log

    start: Callable[..., RunResult] = local.pretrain if mode == "pretrain" else local.tune
    if not is_local:
        from rewardtune.cluster.launch import tune_on_ray

        start = functools.partial(tune_on_ray, is_job=is_job)
    try:
        with contextlib.closing(open_run_log(config, config.learner.num_steps)) as log:
            result = start(config, log, fork=fork)
    except (ValueError, OSError, RuntimeError) as error:
        code = exit_code(error, config.operations.directory, is_job=is_job)
        raise exit_by(error, code) from None
    if not result.is_finished:
        word = "drained" if mode == "tune" else "stopped"
        typer.echo(f"{word}; the same command continues {result.directory}", err=True)
        raise typer.Exit(0 if mode == "tune" else STOPPED)
    typer.echo(json.dumps({"policy": str(result.policy_path), **result.metrics}, indent=1))


def _derived(config: RunConfig) -> dict[str, int | float]:
    from rewardtune.config.run_config import derived
    from rewardtune.datasets.shards.dataset import open_dataset
    from rewardtune.datasets.shards.manifest import DatasetError
    from rewardtune.tasks.task import check_score_rule, load_task

    try:
        train = open_dataset(config.data.train)
    except DatasetError as error:
        typer.echo(f"without token counts and epochs, because {error}", err=True)
        return derived(config)
    task = load_task(config.task, config.task_options, categories=train.categories)
    if config.evaluation.score_rule is not None:
        check_score_rule(config.evaluation.score_rule, task)
    return derived(config, sequence_length=task.vocabulary.max_tokens, num_train=len(train))


def _decoding(temperature: float | None, top_p: float | None) -> Decoding:
    from rewardtune.policies.draw import GREEDY, Decoding

    if temperature is None and top_p is None:
        return GREEDY
    return Decoding(temperature=1.0 if temperature is None else temperature, top_p=top_p)
