"""What a run's checkpoint holds, and the policy files that a run leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from learner.checkpoint import Checkpoint, CheckpointError, prune, save_checkpoint
from learner.learner import Learner
from learner.not_finite import NotFinite, ended_by
from rewardtune.policies.policy_file import save_policy
from rewardtune.policies.weights import unpack_tensor
from rewardtune.records import PackedTensor, PackedWeights
from rewardtune.run.assembly import Parts
from rewardtune.run.directory import RunDirectory
from rewardtune.transport.term import StaleTerm

_BEHAVIOUR = "behaviour-"


class Loop(Protocol):
    """What takes a run's steps, as far as its checkpoints go."""

    @property
    def learner(self) -> Learner: ...

    def behaviour(self) -> Mapping[int, PackedWeights]:
        """Weights of versions before the learner's that batches still to come are drawn with."""
        ...

    def restore(self, versions: Mapping[int, PackedWeights]) -> None:
        """Go on from the learner's state and these older weights."""
        ...


def save_run(parts: Parts, run: RunDirectory, loop: Loop) -> Path:
    """Write a checkpoint.

    Returns:
        Its folder.

    Raises:
        StaleTerm: a newer start has taken the run over.
        OSError: the disk is full, say; no half checkpoint is left.
    """
    if run.is_superseded():
        raise StaleTerm(
            f"another process has taken over {run.path}: this one stops without writing"
        )
    learner = loop.learner
    optimizer, ledger = learner.state()
    behaviour: dict[str, Mapping[str, Tensor]] = {
        f"{_BEHAVIOUR}{version:08d}": {name: unpack_tensor(p) for name, p in weights.items()}
        for version, weights in loop.behaviour().items()
    }
    state = {
        "identity_hash": parts.config.identity_hash(),
        "train_digest": parts.train.digest,
        "term": run.term,
        "ledger": ledger,
    }
    files = {"weights": learner.weights(), "optimizer": optimizer, **behaviour}
    path = save_checkpoint(run.checkpoints, learner.policy_version, files, state)
    prune(run.checkpoints, keep_last=parts.config.operations.keep_checkpoints)
    return path


def last_good(parts: Parts, run: RunDirectory, loop: Loop, error: NotFinite) -> NotFinite:
    """Write the checkpoint before the step that left the numbers; returns what ends the run.

    Raises:
        As ``save_run``.
    """
    path = save_run(parts, run, loop)
    return ended_by(error, step=loop.learner.policy_version, checkpoint=path)


def restore_run(run: RunDirectory, loop: Loop) -> None:
    """Go on where the checkpoint that ``open_run`` found was taken."""
    checkpoint = run.checkpoint
    if checkpoint is None:
        return
    restore_learner(checkpoint, loop.learner)
    loop.restore(
        {
            int(name.removeprefix(_BEHAVIOUR)): _packed(tensors)
            for name, tensors in checkpoint.files.items()
            if name.startswith(_BEHAVIOUR)
        }
    )


def restore_learner(checkpoint: Checkpoint, learner: Learner) -> None:
    """Weights, optimizer and ledger: all that a rank that does not publish needs.

    Raises:
        CheckpointError: the weights are of another network, by a version of this package that
            built one from the same config.
    """
    files = checkpoint.files
    kept = {(name, tensor.shape) for name, tensor in files["weights"].items()}
    odd = kept ^ {(name, tensor.shape) for name, tensor in learner.weights().items()}
    if odd:
        raise CheckpointError(
            f"checkpoint {checkpoint.path} holds the weights of another network, which differ in "
            f"{', '.join(sorted({name for name, _ in odd})[:3])}: go on with the version of "
            "rewardtune that wrote it, or start a run of its own (operations.directory)"
        )
    learner.restore(files["weights"], files["optimizer"], checkpoint.state["ledger"])


def write_policy(parts: Parts, path: Path, *, step: int) -> None:
    """The policy as it is now, with where it came from."""
    save_policy(
        path,
        parts.policy,
        vocabulary=parts.task.vocabulary.describe(),
        provenance={
            "task": parts.config.task,
            "task_options": parts.config.task_options,
            "identity_hash": parts.config.identity_hash(),
            "mode": parts.config.mode,
            "seed": parts.config.seed,
            "step": step,
            "train_digest": parts.train.digest,
            "checkpoint_digest": parts.config.policy.checkpoint_digest,
            # Said only where it does not, so that files of other runs keep their bytes.
            **({} if parts.config.data.views.keep_aspect else {"keep_aspect": False}),
        },
    )


def _packed(tensors: Mapping[str, Tensor]) -> dict[str, PackedTensor]:
    return {
        name: PackedTensor(
            data_B=tensor.contiguous().flatten().view(torch.uint8).numpy(),
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=tuple(tensor.shape),
        )
        for name, tensor in tensors.items()
    }
