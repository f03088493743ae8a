"""``python -m bench [--only NAME ...] [--quick]``: measure, print, write results.jsonl."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

# Before torch is imported: threads that spin while they wait slow each other down.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from rich.console import Console
from rich.table import Table

from bench import machinery, queue, weights
from bench.figure import EVIDENCE, Figure, machine, write
from bench.networks import hugging_face, learner, log_probs, sampler
from bench.rewards import cider as reward_cider
from bench.rewards import colour as reward_colour
from bench.rewards import detection as reward_detection
from bench.rewards import panoptic as reward_panoptic

RESULTS = EVIDENCE / "bench" / "results.jsonl"
GROUPS: dict[str, Callable[..., Iterator[Figure]]] = {
    "reward.cider": reward_cider.cider,
    "reward.colour": reward_colour.colour,
    "reward.detection_reward": reward_detection.detection,
    "reward.panoptic": reward_panoptic.panoptic,
    "queue": queue.queues,
    "learner.demo": learner.demo,
    "learner.log_probs": log_probs.demo,
    "sampler.demo": sampler.demo,
    "sampler.vit_b": sampler.vit_b,
    "sampler.vit_b_448": sampler.vit_b_448,
    "sampler.hugging_face": hugging_face.vit_b_bert,
    "weights": weights.stores,
    "machinery": machinery.machinery,
}
"""What can be measured, by the beginning of its figures' names."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        choices=GROUPS,
        default=list(GROUPS),
        help=f"measure only these: {', '.join(GROUPS)}",
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, no ViT-B peers")
    parser.add_argument("--output", type=Path, default=None, help=f"default: {RESULTS}")
    told = parser.parse_args(arguments)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    # Into a file the table is as wide as it needs; 80 columns would cut the numbers off.
    console = Console(width=None if sys.stdout.isatty() else 120)
    figures: list[Figure] = []
    started = time.monotonic()
    for name in told.only:
        with console.status(f"measuring {name}"):
            figures += GROUPS[name](is_quick=told.quick)
    console.print(table(figures))
    console.print(f"{machine()}; {time.monotonic() - started:.0f} s")
    is_whole = not told.quick and len(told.only) == len(GROUPS)
    output = told.output or (RESULTS if is_whole else None)
    if output is None:
        console.print("Not written: only a whole run replaces results.jsonl (or give --output).")
    else:
        write(figures, output)
        console.print(f"Written to {output}.")


def table(figures: Sequence[Figure]) -> Table:
    result = Table(title="Ahead of the peer, and share of the floor's speed")
    for column in ("figure", "value", "unit", "peer", "ratio", "floor", "of floor"):
        is_text = column in ("figure", "unit")
        result.add_column(column, justify="left" if is_text else "right", no_wrap=True)
    for f in figures:
        result.add_row(
            f.name,
            _number(f.value),
            f.unit,
            _number(f.peer_value),
            "" if f.ratio is None else f"{f.ratio:.2f}x",
            _number(f.floor),
            "" if f.of_floor is None else f"{f.of_floor:.0%}",
        )
    return result


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
