"""``make check-dashboards``: a real Prometheus against a real run; every panel must show something.

Starts ``rewardtune tune`` with the shipped digit detector on Ray, finds its driver's /sd in what
it says, and lets ``deploy.check_dashboards`` ask what Grafana would ask. The run is stopped then.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.figure import EVIDENCE, machine
from deploy.check_dashboards import HERE, answerable, check
from deploy.dashboard import Dashboard
from rewardtune.datasets.digits.files import write_digits

OUTPUT = EVIDENCE / "deploy" / "dashboards.jsonl"
_CONFIG = "configs/digits_detection_map.toml"
_SD = re.compile(r"http://[^ ]+/sd")
_STOP_SECONDS = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.deploy.live_dashboards", description=__doc__
    )
    parser.add_argument(
        "--seconds", type=float, default=180.0, help="for a panel to show something"
    )
    told = parser.parse_args(arguments)
    dashboards = sorted(HERE.glob("grafana/dashboards/*.json"))
    with tempfile.TemporaryDirectory(prefix="rt-dash-") as folder:
        digits = Path(folder) / "digits"
        write_digits(digits, num_scenes={"train": 128, "holdout": 16})
        run = subprocess.Popen(
            [sys.executable, "-m", "rewardtune", "tune", _CONFIG, *_settings(Path(folder), digits)],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert run.stderr is not None
        try:
            said = []
            for line in run.stderr:
                said.append(line)
                if found := _SD.search(line):
                    break
            else:
                print("".join(said), file=sys.stderr)
                print("error: the run ended before it exported metrics", file=sys.stderr)
                return 2
            problems = check(found.group(), dashboards, seconds=told.seconds)
        finally:
            run.send_signal(signal.SIGTERM)
            run.communicate(timeout=_STOP_SECONDS)
    record = {"queries": _num_queries(dashboards), "problems": problems, "machine": machine()}
    with OUTPUT.open("a") as file:
        file.write(json.dumps(record) + "\n")
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        num_queries = _num_queries(dashboards)
        print(
            f"{num_queries} queries of {len(dashboards)} dashboards all have data from a live run"
        )
    return 1 if problems else 0


def _num_queries(dashboards: Sequence[Path]) -> int:
    return sum(len(answerable(Dashboard.read(path))) for path in dashboards)


def _settings(folder: Path, digits: Path) -> list[str]:
    """Steps of a second, so that everything has happened a few times within a minute."""
    changes = {
        "data.train": f'"{digits / "train"}"',
        "data.holdout": f'"{digits / "holdout"}"',
        "learner.batch_size": "16",
        "learner.num_steps": "100000",
        "sampler.micro_batch": "8",
        "sampler.num_samples": "4",
        "compute.threads": "1",
        "evaluation.every_steps": "10",
        "operations.checkpoint_every": "10",
        "operations.directory": f'"{folder / "run"}"',
        "operations.progress": "false",
    }
    return [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]


if __name__ == "__main__":
    sys.exit(main())
