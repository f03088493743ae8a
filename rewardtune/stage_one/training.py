"""Training a stage I: pictures with labels in, a codec out (algorithm spec, section 7)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learner.checkpoint import (
    Checkpoint,
    clear_unfinished,
    latest_checkpoint,
    prune,
    save_checkpoint,
)
from learner.not_finite import NotFinite, ended_by, found_not_finite
from learner.optimizer import Optimizer
from learner.schedule import multiplier
from learner.term import claim_term, latest_term
from rewardtune.config.run_config import ConfigError
from rewardtune.datasets.example import Dataset
from rewardtune.datasets.order import DataOrder
from rewardtune.datasets.shards.dataset import ShardDataset, open_dataset
from rewardtune.evaluation.history import History
from rewardtune.run.log import RunLog
from rewardtune.run.stopping import stop_on_signal
from rewardtune.stage_one.batch import LabelledBatch, labelled_batch
from rewardtune.stage_one.config import StageOneRunConfig
from rewardtune.stage_one.evaluation import reconstruction_metrics
from rewardtune.tasks.uvim.codebook import CodeUse, code_dropout
from rewardtune.tasks.uvim.loss import stage_one_loss
from rewardtune.tasks.uvim.stage_one import StageOne
from rewardtune.tasks.uvim.stage_one_file import save_stage_one

_STREAM = 0x73746167


@dataclass(frozen=True, slots=True)
class StageOneResult:
    directory: Path
    path: Path
    """The stage I to use: best on the holdout set where there is one, else the last."""
    metrics: Mapping[str, float]
    """Holdout metrics of it; empty without a holdout set."""
    is_finished: bool
    """False: stopped by a signal; the same call takes it up again."""


class StageOneTrainer:
    """Holds the weights and the codebook; consumes batches in order and counts them."""

    def __init__(self, config: StageOneRunConfig, train: Dataset, *, device: torch.device) -> None:
        """Start afresh from the config's seed; durations of its schedule are in steps."""
        torch.manual_seed(config.seed)
        sizes = config.network.sizes(config.task, len(train.categories))
        self.network = StageOne(sizes).to(device)
        self.num_steps = 0
        self._config = config
        self._train = train
        self._device = device
        self._order = DataOrder(len(train), config.seed, config.data.views)
        parameters = dict(self.network.named_parameters())
        self._optimizer = Optimizer(parameters, config.training.optimizer)

    def step(self) -> dict[str, float]:
        """Consume one batch; figures for the log.

        Raises:
            NotFinite: the batch is not consumed; nothing has changed.
        """
        started = time.perf_counter()
        settings, batch = self._config.training, self._batch()
        loaded = time.perf_counter()
        # Of the step alone: a run taken up again needs no state of random numbers.
        seed = int(
            np.random.SeedSequence([self._config.seed, _STREAM, self.num_steps]).generate_state(
                1, np.uint64
            )[0]
            >> 1
        )
        generator = torch.Generator().manual_seed(seed)
        kept_NL = self._kept(generator)
        self._optimizer.zero_grad()
        reconstruction = torch.zeros((), device=self._device)
        vectors, codes = [], []
        for start in range(0, settings.batch_size, settings.micro_batch):
            rows = slice(start, start + settings.micro_batch)
            part = batch.rows(rows, self._device)
            with torch.autocast(
                self._device.type, torch.bfloat16, enabled=settings.dtype == "bfloat16"
            ):
                loss = stage_one_loss(
                    self.network,
                    part.labels,
                    part.images_NHWC,
                    commitment_weight=settings.commitment_weight,
                    kept_NL=None if kept_NL is None else kept_NL[rows].to(self._device),
                )
            share = len(part) / settings.batch_size
            (share * loss.total).backward()
            reconstruction += share * loss.reconstruction
            vectors.append(loss.vector_NLE)
            codes.append(loss.code_NL)
        figures = self._update(loss=float(reconstruction))
        # Last: what it takes in cannot be taken back.
        use = self.network.codebook.follow(
            torch.cat(vectors),
            torch.cat(codes),
            momentum=settings.dictionary_momentum,
            min_count=settings.min_count,
            generator=generator,
        )
        self.num_steps += 1
        return {
            "step": self.num_steps,
            "loss": float(reconstruction),
            **figures,
            **_use(use),
            "seconds": time.perf_counter() - started,
            "seconds_load": loaded - started,
            "seconds_learn": time.perf_counter() - loaded,
        }

    def _batch(self) -> LabelledBatch:
        size = self._config.training.batch_size
        first = self.num_steps * size
        entries = [self._order.entry(ordinal) for ordinal in range(first, first + size)]
        return labelled_batch(
            self._config.task,
            self._train,
            [(entry.example, entry.view) for entry in entries],
            input_size=self.network.config.input_size,
        )

    def _kept(self, generator: torch.Generator) -> Tensor | None:
        settings = self._config.training
        if settings.code_dropout == "none":
            return None
        return code_dropout(
            settings.batch_size,
            self.network.config.code_length,
            is_ordered=settings.code_dropout == "ordered",
            generator=generator,
        )

    def _update(self, *, loss: float) -> dict[str, float]:
        settings, norm = self._config.training, self._optimizer.grad_norm()
        self._insist_on_finite({"loss": loss, "gradient norm": norm})
        rate = multiplier(settings.schedule, self.num_steps, settings.num_steps)
        step = self._optimizer.step(rate, grad_norm=norm)
        self._insist_on_finite({"norm of the update": step.update_norm})
        return {
            "grad_norm": norm,
            "update_norm": step.update_norm,
            "learning_rate": rate * settings.optimizer.learning_rate,
        }

    def _insist_on_finite(self, values: Mapping[str, float]) -> None:
        if (found := found_not_finite(values)) is not None:
            raise NotFinite(f"step {self.num_steps + 1}: {found}")

    def state(self) -> dict[str, Mapping[str, Tensor]]:
        """Tensors for a checkpoint; live."""
        return {"weights": self.network.state_dict(), "optimizer": self._optimizer.state_dict()}

    @torch.no_grad()
    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue where ``state`` was taken, bit for bit."""
        for name, tensor in self.network.state_dict().items():
            tensor.copy_(checkpoint.files["weights"][name])
        self._optimizer.load_state_dict(checkpoint.files["optimizer"])
        self.num_steps = checkpoint.step


def train_stage_one(
    config: StageOneRunConfig, log: RunLog, *, fork: bool = False
) -> StageOneResult:
    """Train a stage I, or take up a run where it stood.

    Raises:
        ConfigError, ValueError, CheckpointError, OSError: one line that says what to fix.
        NotFinite: a step left the numbers; says which, and where the last good checkpoint is.
    """
    torch.set_num_threads(config.compute.threads)
    device = _device(config)
    train = open_dataset(config.data.train)
    holdout = open_dataset(config.data.holdout) if config.data.holdout else None
    config = _pinned(config, device=device, train=train, holdout=holdout)
    run = _Run(config, fork=fork)
    trainer = StageOneTrainer(config, train, device=device)
    history = History(run.path, metric=config.evaluation.metric)
    if (checkpoint := latest_checkpoint(run.checkpoints, log.message)) is not None:
        trainer.restore(checkpoint)
        log.message(f"continuing {run.path} at step {trainer.num_steps}")
    saved, num_steps = trainer.num_steps if checkpoint else None, config.training.num_steps
    every, operations = config.evaluation.every_steps, config.operations
    with stop_on_signal() as stop:
        while trainer.num_steps < num_steps and not stop:
            try:
                figures = trainer.step()
            except NotFinite as error:
                path = run.save(trainer)
                raise ended_by(error, step=trainer.num_steps, checkpoint=path) from error
            step = trainer.num_steps
            if step % operations.log_every == 0:
                log.step(figures)
            is_last = step == num_steps
            if holdout is not None and (is_last or (every and step % every == 0)):
                metrics = _measured(trainer.network, config, holdout)
                log.evaluation(step, metrics)
                if history.add(step, metrics):
                    _write(run.path / "best.safetensors", trainer, config, train)
            if is_last or stop or step % operations.checkpoint_every == 0:
                run.save(trainer)
                saved = step
        if saved != trainer.num_steps:
            run.save(trainer)
    last, best = run.path / "stage_one.safetensors", run.path / "best.safetensors"
    _write(last, trainer, config, train)
    return StageOneResult(
        directory=run.path,
        path=best if history.best and best.exists() else last,
        metrics={k: v for k, v in history.best.items() if k != "step"},
        is_finished=trainer.num_steps >= num_steps,
    )


class _Run:
    """A run's directory, held by one term."""

    def __init__(self, config: StageOneRunConfig, *, fork: bool) -> None:
        self.path = config.operations.directory
        self._config = config
        file = self.path / "config.json"
        if file.exists() and not fork and _identity_hash(file) != config.identity_hash():
            raise ConfigError(
                f"{self.path} holds another run: set operations.directory to a new folder, undo "
                f"the change, or continue from its checkpoint under the new config with --fork"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        self._term = claim_term(self.path)
        partial = self.path / f".config-{self._term}.json"
        partial.write_text(config.model_dump_json(indent=1))
        partial.replace(file)
        clear_unfinished(self.checkpoints)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def save(self, trainer: StageOneTrainer) -> Path:
        if latest_term(self.path) > self._term:
            raise RuntimeError(
                f"another process has taken over {self.path}: this one stops without writing"
            )
        state = {"identity_hash": self._config.identity_hash(), "term": self._term}
        path = save_checkpoint(self.checkpoints, trainer.num_steps, trainer.state(), state)
        prune(self.checkpoints, keep_last=self._config.operations.keep_checkpoints)
        return path


def _identity_hash(file: Path) -> str:
    try:
        return StageOneRunConfig.model_validate_json(file.read_text()).identity_hash()
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{file} cannot be read as a stage-I run ({reason}): set operations.directory to a "
            f"new folder"
        ) from None


def _device(config: StageOneRunConfig) -> torch.device:
    wanted = config.compute.device
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "compute.device = 'cuda' but torch sees no GPU here: set it to 'cpu' or 'auto'"
        )
    return torch.device(wanted)


def _pinned(
    config: StageOneRunConfig,
    *,
    device: torch.device,
    train: ShardDataset,
    holdout: ShardDataset | None,
) -> StageOneRunConfig:
    """The config with digests, device and a schedule in steps: its identity is complete."""
    values: dict[str, Any] = json.loads(config.model_dump_json())
    for name, dataset in (("train", train), ("holdout", holdout)):
        expected = values["data"][f"{name}_digest"]
        found = dataset.digest if dataset else None
        if expected is not None and expected != found:
            raise ConfigError(
                f"data.{name} = {values['data'][name]} has digest {found} but this run needs "
                f"{expected}: restore what it held, or start a new run on it"
            )
        values["data"][f"{name}_digest"] = found
    values["compute"]["device"] = device.type
    schedule = config.training.schedule.in_steps(
        batch_size=config.training.batch_size, num_examples=len(train)
    )
    values["training"]["schedule"] = json.loads(schedule.model_dump_json())
    return StageOneRunConfig.model_validate(values)


def _measured(
    network: StageOne, config: StageOneRunConfig, holdout: ShardDataset
) -> dict[str, float]:
    wanted = config.evaluation.num_examples or len(holdout)
    indices = range(min(wanted, len(holdout)))
    return reconstruction_metrics(
        network, config.task, holdout, indices=indices, view=config.data.views.whole
    )


def _write(
    path: Path, trainer: StageOneTrainer, config: StageOneRunConfig, train: ShardDataset
) -> None:
    names = [category.name for category in train.categories]
    save_stage_one(
        path,
        trainer.network,
        class_names=names if config.task == "panoptic" else None,
        provenance={
            "task": config.task,
            "identity_hash": config.identity_hash(),
            "seed": config.seed,
            "step": trainer.num_steps,
            "train_digest": train.digest,
        },
    )


def _use(use: CodeUse) -> dict[str, float]:
    return {
        "code_max_share": use.max_share,
        "code_unused_share": use.unused_share,
        "code_revivals": float(use.num_revivals),
    }
