"""``python -m bench.full_size --task TASK``: one tune step at the paper's size, and what it takes.

As the task's config in ``configs/paper`` says, with random weights and one made picture: publish
the weights, draw the picture's rollouts, score them with the task's reward, train. Micro-batch 1,
activations computed again in the backward pass; sampler, scorer and learner take turns in one
process, and the sampler's weights are given up when it has drawn.
Prints seconds by phase; adds a line to full_size.jsonl with these, processor time, which a busy
machine moves less, and the peak of resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from bench.figure import EVIDENCE, machine
from bench.full_size.step import STEPS, Dtype, PaperStep, made_parts, tiny
from learner.ranks import LocalShards
from reward_workers.scoring.score import score_group
from rewardtune.policies.weights import pack_weights
from rewardtune.records import Published
from rewardtune.run.assembly import Parts, build_reward, build_sampler
from rewardtune.run.tuning import own_images, tuning_learner

RESULTS = EVIDENCE / "bench" / "full_size.jsonl"


def measure(parts: Parts, *, report: Callable[[str, float], None]) -> dict[str, object]:
    """Seconds of each phase of one step, and peak memory of this process in GB."""
    config = parts.config
    learner = tuning_learner(parts, LocalShards())
    sampler, reward = build_sampler(parts), build_reward(parts)
    ordinals = learner.ledger.next_ordinals
    seconds: dict[str, float] = {}
    processor_seconds: dict[str, float] = {}

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        start, processor_start = time.perf_counter(), time.process_time()
        yield
        seconds[name] = time.perf_counter() - start
        processor_seconds[name] = time.process_time() - processor_start
        report(name, seconds[name])

    with phase("publish"):
        weights = pack_weights(parts.policy, dtype=getattr(torch, config.sampler.dtype))
        sampler.load(weights, Published(term=0, policy_version=0))
        del weights
    with phase("sample"):
        groups = sampler.sample(ordinals).groups
    del sampler  # on a cluster its weights lie in another process
    with phase("score"):
        scored = [
            score_group(
                group,
                task=parts.task,
                dataset=parts.train,
                framing=parts.policy.framing,
                reward=reward,
            )
            for group in groups
        ]
    with phase("update"):
        step = learner.reinforce(scored, own_images(parts, learner, scored))
    assert not step.is_skipped, "no group is valid"
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "parameters": sum(parameter.numel() for parameter in parts.policy.parameters()),
        "num_samples": config.sampler.num_samples,
        "sequence_length": parts.task.vocabulary.max_tokens,
        "rewards": [round(float(one), 4) for one in scored[0].score.reward_S],
        "dtype": config.learner.dtype,
        "seconds": round(sum(seconds.values()), 2),
        **{f"{name}_seconds": round(t, 2) for name, t in seconds.items()},
        "processor_seconds": round(sum(processor_seconds.values()), 2),
        **{f"{name}_processor_seconds": round(t, 2) for name, t in processor_seconds.items()},
        "peak_memory_gb": round(kilobytes * 1024 / 1e9, 2),
    }


def measured_step(
    step: PaperStep, *, dtype: Dtype | None, report: Callable[[str, float], None]
) -> dict[str, object]:
    """As ``measure``, of a step whose files live as long as it takes."""
    with tempfile.TemporaryDirectory(prefix="full_size_") as folder:
        return measure(made_parts(step, Path(folder), dtype=dtype), report=report)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.full_size", description=__doc__)
    parser.add_argument("--task", choices=sorted(STEPS), default="detection")
    parser.add_argument("--size", help="of the encoder, where the paper has several")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="other than the config's")
    parser.add_argument("--tiny", action="store_true", help="a toy instead, to try the command")
    parser.add_argument("--output", type=Path, default=RESULTS)
    told = parser.parse_args(arguments)
    sizes = STEPS[told.task]
    size = told.size or next(iter(sizes))
    if size not in sizes:
        parser.error(f"--size {size}: {told.task} has {', '.join(sizes)}")
    toy = tiny(sizes[size], task=told.task)
    step = toy if told.tiny else sizes[size]
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    load_average = os.getloadavg()[0]

    def report(name: str, taken: float) -> None:
        print(f"{name:8} {taken:8.2f} s", flush=True)

    # Services compile kernels, and load what torch loads at its first use, once in their lives.
    measured_step(toy, dtype=told.dtype, report=lambda name, taken: None)
    measured = measured_step(step, dtype=told.dtype, report=report)
    result = {
        "name": "full_size.tune_step",
        "task": told.task,
        "config": step.config,
        **measured,
        "num_threads": torch.get_num_threads(),
        "load_average": round(load_average, 2),
        "machine": machine(),
    }
    print(json.dumps(result))
    with told.output.open("a") as output:
        output.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
