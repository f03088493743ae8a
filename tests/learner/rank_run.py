"""One rank of a learner on made groups; a process of its own in test_ranks.py.

``python -m tests.learner.rank_run RANK NUM_RANKS FATE STEP TIMEOUT`` prints the port that it
listens at (0: none), is told that of rank 0, and prints one JSON line per step. FATE befalls the
last rank before STEP: none, killed, stopped.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import signal
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learner.config import AdafactorConfig, LearnerConfig
from learner.learner import Learner
from learner.not_finite import NotFinite
from learner.ranks import LocalShards, MeetingPoint, RankLost, ShardExchange, TorchRanks
from rewardtune.datasets.example import Category
from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from rewardtune.records import Group, Published, Score, ScoredGroup, View
from rewardtune.tasks.detection.task import DetectionTask

BATCH, SAMPLES, BOXES = 8, 3, 2
NUM_STEPS = 7
INVALID = {1: [2], 2: [0, 1, 2, 3], 3: range(BATCH)}
"""Rows without a valid score by step: one, a whole shard, all."""
NOT_FINITE = {6: 6}
"""A row whose reward overflows, in the last step: in the last rank's shard alone."""


def made_task() -> DetectionTask:
    categories = [Category(id=1, name="digit", num_instances=10)]
    options = {"max_boxes": BOXES, "confidence_weight": 0.3}
    return DetectionTask(options, categories=categories)


def made_learner(ranks: ShardExchange, *, num_shards: int = 2) -> Learner:
    task = made_task()
    torch.manual_seed(0)
    policy = EncoderDecoder(
        EncoderDecoderConfig(
            input_size=16,
            patch_size=8,
            width=32,
            num_heads=2,
            mlp_width=40,
            encoder_depth=1,
            decoder_depth=1,
            vocab_size=task.vocabulary.size,
            sequence_length=task.vocabulary.max_tokens,
        )
    )
    torch.nn.init.normal_(policy.decoder.head.project.kernel, std=0.2)
    config = LearnerConfig(
        estimator="leave_one_out",
        batch_size=BATCH,
        num_steps=100,
        micro_batch=2,
        gradient_shards=num_shards,
        optimizer=AdafactorConfig(learning_rate=1e-2, grad_clip_norm=1.0),
    )
    return Learner(policy, config, task=task, weighs_importance=True, ranks=ranks)


def made_batch(step: int) -> tuple[list[ScoredGroup], Tensor]:
    rng, task = np.random.default_rng(step), made_task()
    length = task.vocabulary.max_tokens
    scored = []
    for row in range(BATCH):
        group = Group(
            ordinal=step * BATCH + row,
            example=row,
            view=View(),
            published=Published(0, step),
            tokens_ST=rng.integers(0, task.vocabulary.size, (SAMPLES, length), dtype=np.int32),
            # About as likely as under the untrained policy.
            log_probs_ST=-6.9 + 0.1 * rng.standard_normal((SAMPLES, length), dtype=np.float32),
            probe_log_probs_STQ=np.zeros((SAMPLES, length, 1), np.float32),
        )
        overlap = rng.random((SAMPLES, BOXES))
        scored.append(ScoredGroup(group, Score(rng.random(SAMPLES), aux={"match_iou": overlap})))
    for row in INVALID.get(step, ()):
        scored[row] = replace(scored[row], score=replace(scored[row].score, is_valid=False))
    if step in NOT_FINITE:
        row = NOT_FINITE[step]
        reward_S = np.array([np.inf, 0.0, 0.0])
        scored[row] = replace(scored[row], score=replace(scored[row].score, reward_S=reward_S))
    images = rng.random((BATCH, 16, 16, 3), dtype=np.float32) * 2 - 1
    return scored, torch.from_numpy(images)


def take_step(learner: Learner, step: int) -> dict[str, Any]:
    scored, images_GHWC = made_batch(step)
    rows = learner.own_rows
    try:
        report = learner.reinforce(scored, images_GHWC[rows.start : rows.stop])
    except NotFinite as error:
        told: dict[str, Any] = {"ended": str(error)}
    else:
        metrics = {name: repr(value) for name, value in report.metrics.items()}
        told = {"is_skipped": report.is_skipped, "metrics": metrics}
    digest = hashlib.sha256()
    optimizer, ledger = learner.state()
    for name, tensor in sorted([*learner.weights().items(), *optimizer.items()]):
        digest.update(name.encode() + tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return {
        "step": step,
        "digest": digest.hexdigest(),
        "ledger": copy.deepcopy(ledger),
        **told,
    }


def alone(num_shards: int = 2) -> list[dict[str, Any]]:
    """The same steps by one process."""
    learner = made_learner(LocalShards(), num_shards=num_shards)
    return [take_step(learner, step) for step in range(NUM_STEPS)]


def main() -> None:
    rank, num_ranks = (int(word) for word in sys.argv[1:3])
    fate, fatal_step = sys.argv[3], int(sys.argv[4])
    torch.set_num_threads(1)
    meeting = MeetingPoint("127.0.0.1") if rank == 0 else None
    print(0 if meeting is None else meeting.port, flush=True)
    port = int(sys.stdin.readline())
    try:
        ranks = TorchRanks(
            rank=rank,
            num_ranks=num_ranks,
            address=f"127.0.0.1:{port}",
            device=torch.device("cpu"),
            listener=meeting,
            timeout_seconds=float(sys.argv[5]),
        )
        learner = made_learner(ranks)
        for step in range(NUM_STEPS):
            if fate != "none" and step == fatal_step and rank == num_ranks - 1:
                os.kill(os.getpid(), signal.SIGKILL if fate == "killed" else signal.SIGSTOP)
            print(json.dumps(take_step(learner, step)), flush=True)
        told = {
            "decided": ranks.decide(10 + rank),
            "shared": [
                ranks.share(b"%d" % rank).decode(),
                ranks.share(b"" if rank == 0 else b"1").decode(),
            ],
            "has_waited": ranks.seconds > 0.0,
        }
        print(json.dumps(told), flush=True)
        ranks.close()
    except RankLost as error:
        print(json.dumps({"lost": str(error)}), flush=True)
        # Without the goodbyes of torch.distributed, which would wait for the lost one.
        os._exit(3)


if __name__ == "__main__":
    main()
