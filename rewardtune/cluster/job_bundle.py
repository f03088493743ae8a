"""What travels with a job: the run's file, and the user's own modules that it is made of.

On the cluster the bundle is the current folder, whose top Python may search before everything
else. So what is the user's lies deeper, and every process of ours appends it to ``sys.path``: a
module of the user's never shadows one of ours.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from reward_workers.scoring.config import Source
from reward_workers.scoring.digest import OURS, class_sources, run_sources
from reward_workers.scoring.reward import reward_files
from rewardtune.config.run_config import ConfigError, RunConfig
from rewardtune.policies.find import is_from_outside
from rewardtune.shipped import find_config, shipped_file
from rewardtune.tasks.artefacts import named_artefacts
from rewardtune.tasks.task import task_class

FOLDER = "rewardtune_job"
RUN_FILE = f"{FOLDER}/run.toml"
CODE_FOLDER = f"{FOLDER}/code"
MAX_BYTES = 100 * 2**20
"""Ray's own limit for what is sent to it."""
LEFT_OUT = (".git", ".venv", "runs", "data", "__pycache__")
_STOP_SECONDS = 120
_PASSED_ON = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "20000"}
_PASSED_ON_IF_SET = ("HF_HUB_OFFLINE", "REWARDTUNE_TRACEBACK")


def write_bundle(
    folder: Path, config_path: Path, config: RunConfig, *, working_dir: Path | None
) -> None:
    """Fill an empty folder.

    Args:
        working_dir: code to run with; None: what is installed on the cluster.

    Raises:
        ConfigError: it would be too large, or the task or reward is a module that cannot be found.
    """
    if working_dir is not None:
        _check_size(working_dir)
        ignore = shutil.ignore_patterns(*LEFT_OUT)
        shutil.copytree(working_dir, folder, dirs_exist_ok=True, ignore=ignore)
    (folder / FOLDER).mkdir(exist_ok=True)
    shutil.copyfile(find_config(config_path), folder / RUN_FILE)
    (folder / CODE_FOLDER).mkdir(exist_ok=True)
    write_code(folder / CODE_FOLDER, config)


def write_code(folder: Path, config: RunConfig) -> None:
    """Copy the user's own modules there, for processes that append the folder to ``sys.path``.

    Of a run that needs none nothing is written.

    Raises:
        ConfigError: a module cannot be found.
    """
    for name, path in _own_modules(config):
        parts = name.split(".")
        is_package = path.name == "__init__.py"
        target = folder.joinpath(*parts) if is_package else folder.joinpath(*parts[:-1])
        target.mkdir(parents=True, exist_ok=True)
        # Of a run that is gone on with from its own copy, source and copy are one.
        if not (target / path.name).exists() or not path.samefile(target / path.name):
            shutil.copyfile(path, target / path.name)


def entrypoint(config: RunConfig, overrides: Sequence[str]) -> str:
    """The command that the cluster runs; relative paths are taken from the current folder.

    A shipped file keeps its name: the cluster's own installation has it.
    """
    paths = {
        "operations.directory": config.operations.directory,
        "data.train": config.data.train,
        "data.holdout": config.data.holdout,
        "data.validation": config.data.validation,
        "policy.checkpoint": config.policy.checkpoint,
        "policy.encoder": config.policy.encoder,
        "operations.artefacts": config.operations.artefacts,
        "security.ca": config.security.ca,
        "security.certificate": config.security.certificate,
        "security.key": config.security.key,
        "security.token_file": config.security.token_file,
    }
    files = _named_files(config)
    absolute = [
        f'{key}="{path.absolute()}"'
        for key, path in {**paths, **files}.items()
        if path is not None and (path.exists() or shipped_file(path) is None)
    ]
    # By the interpreter of that Ray: its folder of commands need not be on the path.
    # Without a shell around it: a signal that ends a job would end the shell first.
    words = ["exec", "python", "-m", "rewardtune", "tune", RUN_FILE, "--address", "auto"]
    for override in [*overrides, *absolute]:
        words += ["--set", override]
    return shlex.join(words)


def environment(own: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Of the job and its actors."""
    return {
        # From "stop" to kill: Ray's own 3 seconds are too few for a checkpoint.
        "RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_SECONDS),
        "REWARDTUNE_CODE": CODE_FOLDER,
        **_PASSED_ON,
        **{name: own[name] for name in _PASSED_ON_IF_SET if name in own},
    }


def _named_files(config: RunConfig) -> dict[str, Path]:
    """Files that options name, as they name them, by the key of the config."""
    found = {
        f"task_options.{key}": path
        for key, path in named_artefacts(
            task_class(config.task), config.task_options, of=f"task '{config.task}'"
        ).items()
    }
    for name, part in config.reward.of_source(Source.FUNCTION) if config.reward else ():
        for key, path in reward_files(part).items():
            found[f"reward.parts.{name}.options.{key}"] = path
    return found


def _own_modules(config: RunConfig) -> Iterable[tuple[str, Path]]:
    """The user's, by name: task, functions of the reward, policy, and what they import."""
    kind = config.policy.kind
    try:
        sources = run_sources(config.task, config.reward)
        if kind is not None and is_from_outside(kind):
            sources |= class_sources(kind, of=f"policy.kind = '{kind}'")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    for name, path in sources.items():
        # Installed packages are the cluster's own affair.
        is_installed = "site-packages" in path.parts or "dist-packages" in path.parts
        if name.partition(".")[0] not in OURS and not is_installed:
            yield name, path


def _check_size(folder: Path) -> None:
    num_bytes = 0
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        num_bytes += sum((Path(root) / name).lstat().st_size for name in files)
    if num_bytes > MAX_BYTES:
        raise ConfigError(
            f"--working-dir {folder} has {num_bytes / 2**20:.0f} MiB without "
            f"{', '.join(LEFT_OUT)}, but a job can bring {MAX_BYTES // 2**20}: give a folder of "
            "code only, and put data and checkpoints where the cluster can read them"
        )
