"""``python -m tests.in_a_row 10``: the whole suite so many times, and one line of a log for each.

Stops at the first failure, so that the log's last lines are what held. The load at the start
says whether the cores were idle: a figure of a busy machine bounds nothing.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rewardtune.run.machine import machine

ROOT = Path(__file__).resolve().parents[1]
LOG = ROOT / "evidence" / "tests" / "in_a_row.jsonl"


def main(arguments: Sequence[str] | None = None) -> int:
    told = sys.argv[1:] if arguments is None else list(arguments)
    if len(told) != 1 or not told[0].isdigit():
        print("usage: python -m tests.in_a_row TIMES", file=sys.stderr)
        return 2
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True)
    for run in range(1, 1 + int(told[0])):
        record, output = run_once()
        line = json.dumps({"run": run, "commit": commit.strip(), **record, "machine": machine()})
        print(line, flush=True)
        LOG.parent.mkdir(parents=True, exist_ok=True)
        with LOG.open("a") as log:
            log.write(line + "\n")
        if record["exit_code"]:
            print(output[-20_000:], file=sys.stderr)
            return 1
    return 0


def run_once() -> tuple[dict[str, Any], str]:
    """``make test`` once: what it came to, and what it printed."""
    load, before, started = os.getloadavg()[0], _child_seconds(), time.monotonic()
    # What make finds newer than its stamp it would install: that is not what is timed here.
    command = ["make", "--old-file=install", "test"]
    ended = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return {
        "exit_code": ended.returncode,
        "seconds": round(time.monotonic() - started, 1),
        # Of pytest and the processes that it waited for; Ray's own are nobody's children.
        "processor_seconds": round(_child_seconds() - before, 1),
        "load_at_start": round(load, 1),
        **counts(ended.stdout),
    }, ended.stdout


def counts(output: str) -> dict[str, int]:
    """Tests by what became of them, over all of pytest's last lines."""
    found = {"passed": 0, "failed": 0, "skipped": 0}
    for line in re.findall(r"^=+ (.*) in [\d.]+s.*=+$", output, flags=re.MULTILINE):
        for number, word in re.findall(r"(\d+) (passed|failed|skipped)", line):
            found[word] += int(number)
    return found


def _child_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
