"""One run of ``bench.digest`` or ``bench.cost`` with the code of one commit alone; prints JSON.

Run by path, ``python -P commit_run.py ROOT NAME AMOUNT``, in ROOT and with ROOT as PYTHONPATH,
so that this file may be of another commit than everything it imports. Of a module that has moved
both names are tried, the newer first: ``docs/moved.md``.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

_CONFIG = Path("configs/digits_detection_map.toml")
_NUM_SCENES = {"train": 640, "holdout": 16, "validation": 16}
# The demo's own warm-up and cool-down are longer than the run.
_SCHEDULE = {"warmup": 5, "cooldown": 5}


def main() -> None:
    root, name, amount = Path(sys.argv[1]).resolve(), sys.argv[2], int(sys.argv[3])
    _keep_to(root)
    with tempfile.TemporaryDirectory(prefix="rt-commit-") as folder:
        found = _RUNS.get(name, _one_process)(Path(folder), name, amount)
    _check_origins(root)
    print(json.dumps(found))


def _keep_to(root: Path) -> None:
    """Take other copies off the path: an editable install is one, and folders without
    ``__init__.py``, such as tests, are put together from all of them."""
    sys.path[:] = [
        path
        for path in sys.path
        if Path(path).resolve() == root or not (Path(path) / "rewardtune/__init__.py").is_file()
    ]
    importlib.import_module("rewardtune")
    _check_origins(root)


def _check_origins(root: Path) -> None:
    """What has the name of a folder of the commit must be in it."""
    folders = {path.name for path in root.iterdir() if path.is_dir()}
    for name, module in list(sys.modules.items()):
        file: str | None = getattr(module, "__file__", None)
        if file is None or name.partition(".")[0] not in folders:
            continue
        if root not in Path(file).resolve().parents:
            sys.exit(f"error: '{name}' comes from {file}, not from {root}")


def _demo(folder: Path, name: str, num_steps: int) -> Mapping[str, str]:
    """The detection demo's run in one process, on fewer of its scenes."""
    small_run = importlib.import_module("bench.small_run")
    return {name: _tuned(_demo_config(folder, num_steps), small_run)}


def _demo_config(folder: Path, num_steps: int) -> Any:
    files = _module("rewardtune.datasets.digits.files", "tasks.digit_files")
    files.write_digits(folder / "digits", num_scenes=_NUM_SCENES, seed=0, style=files.STYLE)
    schedule = {key: min(value, num_steps - 1) for key, value in _SCHEDULE.items()}
    settings = {
        "learner.num_steps": num_steps,
        **{f"learner.schedule.{key}": value for key, value in schedule.items()},
        **{f"data.{split}": folder / "digits" / split for split in _NUM_SCENES},
        "operations.directory": folder / "run",
        "operations.progress": "false",
        "operations.log_every": 1,
    }
    config_file = _module("rewardtune.config.config_file", "rewardtune.config_file")
    return config_file.load_config(_CONFIG, [f"{key}={value}" for key, value in settings.items()])


def _one_process(folder: Path, name: str, num_steps: int) -> Mapping[str, str]:
    """Way (a) of a crash-equivalence run, at depth 0 and depth 1."""
    runs = _module("tests.faults.crash_runs", "bench.crash_runs")
    small_run = importlib.import_module("bench.small_run")
    kind = replace(runs.KINDS[name], num_steps=num_steps)
    start = kind.prepare(folder)
    return {
        f"{name}, depth {depth}": _tuned(
            runs.config_of(kind, folder, f"a{depth}", start, depth=depth, cluster={}), small_run
        )
        for depth in (0, 1)
    }


def _no_work(folder: Path, name: str, num_steps: int) -> Mapping[str, float]:
    """Seconds of a group beside the work of policy and task; the best of three rounds."""
    machinery = importlib.import_module("bench.machinery")
    figures = machinery.machinery_figures(num_steps=num_steps, num_rounds=3)
    return {name: next(f.value for f in figures if f.name == "machinery.noop.seconds")}


def _redis_queue(folder: Path, name: str, num_batches: int) -> Mapping[str, float]:
    """Seconds of a group through the newest Redis on the PATH; the median of seven rounds."""
    queue = importlib.import_module("bench.queue")
    redis_server = importlib.import_module("tests.rewardtune.transport.redis_server")
    binaries = redis_server.redis_binaries()
    with (
        redis_server.running(binaries[max(binaries)], folder) as server,
        queue.redis_way(server) as ours,
    ):
        ours.pass_batches(4)
        seconds = []
        for _ in range(7):
            began = time.perf_counter()
            ours.pass_batches(num_batches)
            seconds.append(time.perf_counter() - began)
    return {name: statistics.median(seconds) / (num_batches * queue.BATCH)}


def _demo_step(folder: Path, name: str, num_steps: int) -> Mapping[str, float]:
    """Seconds of a step of the detection demo in one process; the median but for the first."""
    config = _demo_config(folder, num_steps)
    config = config.model_copy(update={"data": config.data.model_copy(update={"holdout": None})})
    run_log = importlib.import_module("rewardtune.run.log")
    written = folder / "log.jsonl"
    importlib.import_module("rewardtune.run.local").tune(config, run_log.JsonLinesLog(written))
    steps = [json.loads(line) for line in written.read_text().splitlines()]
    return {name: statistics.median(step["seconds"] for step in steps[1:] if "seconds" in step)}


_RUNS: Mapping[str, Callable[[Path, str, int], Mapping[str, Any]]] = {
    "demo": _demo,
    "no-op group": _no_work,
    "Redis group": _redis_queue,
    "demo step": _demo_step,
}
"""By name; any other is a run of crash equivalence."""


def _tuned(config: Any, small_run: ModuleType) -> str:
    local = _module("rewardtune.run.local", "rewardtune.local")
    local.tune(config, small_run.SILENT)
    digest: str = small_run.weights_of(config.operations.directory / "policy.safetensors")
    return digest


def _module(*names: str) -> ModuleType:
    """The first that is there."""
    for name in names[:-1]:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not f"{name}.".startswith(f"{error.name}."):
                raise  # it is there, and something that it imports is not
    return importlib.import_module(names[-1])


if __name__ == "__main__":
    main()
