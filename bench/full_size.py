"""``python -m bench.full_size``: one tune step of table 6's network, and what it takes.

ViT-B/16 at 1280 px with 6 decoder layers, 600 tokens of 1084 and random weights: draw two
rollouts of one image, score them with the mAP reward, train on the first with the second as its
baseline and teach confidences; micro-batch 1, activations computed again in the backward pass.
Prints seconds by phase and the peak of resident memory; adds a line to full_size.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from bench.figure import machine
from bench.networks import FULL_SIZE, TINY, random_images, random_policy
from bench.sampler import in_dtype
from bench.scenes import made_task, scored
from learner.config import AdafactorConfig, LearnerConfig
from learner.learner import Learner
from policies.draw import Decoding
from policies.encoder_decoder import EncoderDecoderConfig

RESULTS = Path(__file__).with_name("full_size.jsonl")
Dtype = Literal["float32", "bfloat16"]


def measure(
    config: EncoderDecoderConfig, *, dtype: Dtype, report: Callable[[str, float], None]
) -> dict[str, object]:
    """Seconds of each phase of one step, and peak memory of this process in GB."""
    num_classes = config.vocab_size - 1004
    task = made_task(num_classes=num_classes, max_boxes=config.sequence_length // 6)
    policy = random_policy(config)
    learner = Learner(
        policy,
        LearnerConfig(
            estimator="first",
            batch_size=1,
            micro_batch=1,
            num_steps=1,
            dtype=dtype,
            activation_checkpointing=True,
            optimizer=AdafactorConfig(learning_rate=1e-6),
        ),
        task=task,
    )
    images_GHWC = random_images(1, config)
    seconds: dict[str, float] = {}

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - start
        report(name, seconds[name])

    with phase("publish"):
        sampler = in_dtype(policy, getattr(torch, dtype)).eval()
    with phase("sample"):
        samples = sampler.sample(
            images_GHWC,
            torch.rand(1, 2, config.sequence_length),
            decoding=Decoding(),
            probe_tokens=task.probe_tokens,
        )
    with phase("score"):
        groups = scored(
            samples, task=task, num_classes=num_classes, num_objects=7, size=config.input_size
        )
    with phase("update"):
        step = learner.reinforce(groups, images_GHWC)
    assert not step.is_skipped, "the gradient is not finite"
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "name": "full_size.tune_step",
        "dtype": dtype,
        "parameters": sum(p.numel() for p in policy.parameters()),
        "seconds": round(sum(seconds.values()), 2),
        **{f"{name}_seconds": round(taken, 2) for name, taken in seconds.items()},
        "peak_memory_gb": round(kilobytes * 1024 / 1e9, 2),
        "machine": machine(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.full_size", description=__doc__)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--tiny", action="store_true", help="a toy instead, to try the command")
    parser.add_argument("--output", type=Path, default=RESULTS)
    told = parser.parse_args(arguments)
    torch.set_num_threads(len(os.sched_getaffinity(0)))

    def report(name: str, taken: float) -> None:
        print(f"{name:8} {taken:8.2f} s", flush=True)

    result = measure(TINY if told.tiny else FULL_SIZE, dtype=told.dtype, report=report)
    print(json.dumps(result))
    with told.output.open("a") as output:
        output.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
