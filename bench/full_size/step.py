"""The paper's configs with made inputs in the places of those that are not here.

Architecture, samples, estimator, optimizer and dtypes are the shipped configs'. What is told over
is where files lie, and that a batch is one picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from bench.full_size.data import (
    WORDS_PER_CAPTION,
    write_data,
    write_document_frequencies,
    write_stage_one,
    write_vocabulary,
)
from bench.networks.sizes import TINY, random_policy
from reward_workers.scoring.resolved import resolve
from rewardtune.config.config_file import load_config
from rewardtune.config.run_config import RunConfig
from rewardtune.datasets.shards.dataset import open_dataset
from rewardtune.policies.kinds.encoder_decoder import EncoderDecoderConfig
from rewardtune.run.assembly import Parts
from rewardtune.stage_one.config import load_stage_one_config

Dtype = Literal["float32", "bfloat16"]

_CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "paper"
_BERT_PIECES = 30_522

_ONE_PICTURE = (
    "sampler.micro_batch=1",
    "learner.batch_size=1",
    "learner.micro_batch=1",
    "learner.gradient_shards=1",
    "learner.activation_checkpointing=true",
    "learner.schedule.warmup=0",  # its first update would move nothing
    "compute.device=cpu",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperStep:
    """A config of ``configs/paper``, and the sizes that its data would have given it."""

    config: str
    num_things: int = 80
    num_stuff: int = 0
    num_pieces: int | None = None
    """Of the vocabulary; None: the task reads none."""
    stage_one: str | None = None
    """The config of the network that decodes codes; None: there are no codes."""
    overrides: tuple[str, ...] = ()
    stage_one_overrides: tuple[str, ...] = ()


STEPS: Mapping[str, Mapping[str, PaperStep]] = {
    "detection": {"base": PaperStep(config="detection_coco_map")},
    "captioning": {
        "base": PaperStep(config="captioning_vit_b_cider", num_pieces=_BERT_PIECES),
        "large": PaperStep(config="captioning_vit_l_cider", num_pieces=_BERT_PIECES),
    },
    "panoptic": {
        "large": PaperStep(config="panoptic_tune", num_stuff=53, stage_one="panoptic_stage_one")
    },
    "colorization": {
        "large": PaperStep(config="colorization_tune", stage_one="colorization_stage_one")
    },
}
"""By task and size of the encoder: the paper's tables 6, 8, 5 and 7."""

_TINY_SIZES = TINY.model_dump(
    exclude={"vocab_size", "sequence_length"}, exclude_defaults=True
).items()
_TINY_OVERRIDES = {
    "detection": ("task_options.max_boxes=1",),
    "captioning": ("task_options.max_tokens=6",),
    "panoptic": (),
    "colorization": (),
}


def tiny(step: PaperStep, *, task: str) -> PaperStep:
    """The same step at a size for tests of the benchmark itself."""
    return replace(
        step,
        num_pieces=None if step.num_pieces is None else 1000,
        overrides=(*_TINY_OVERRIDES[task], *(f"policy.{k}={v}" for k, v in _TINY_SIZES)),
        stage_one_overrides=(
            *(f"network.{k}={v}" for k, v in _TINY_SIZES),
            "network.code_length=4",
            "network.dict_size=16",
            "network.codeword_width=8",
            "network.num_instances=12",
        ),
    )


def made_parts(step: PaperStep, folder: Path, *, dtype: Dtype | None) -> Parts:
    """What the config's run works with, from made files and random weights.

    Args:
        folder: for the files; they must stay there as long as the parts are used.
        dtype: of sampler and learner; None: the config's.
    """
    overrides = [
        *_ONE_PICTURE,
        f"compute.threads={torch.get_num_threads()}",
        f"data.train={folder / 'data'}",
        *_artefacts(step, folder),
        *step.overrides,
    ]
    if dtype is not None:
        overrides += [f"sampler.dtype={dtype}", f"learner.dtype={dtype}"]
    config = load_config(_CONFIGS / f"{step.config}.toml", overrides)
    write_data(
        config.data.train,
        num_things=step.num_things,
        num_stuff=step.num_stuff,
        num_words=config.task_options.get("max_tokens", WORDS_PER_CAPTION),
    )
    train = open_dataset(config.data.train)
    resolved = resolve(config.task, config.task_options, None)
    task = resolved.load_task(categories=train.categories)
    policy = random_policy(
        _sizes(config, vocab_size=task.vocabulary.size, sequence_length=task.vocabulary.max_tokens)
    )
    return Parts(
        config=config,
        resolved=resolved,
        train=train,
        holdout=None,
        task=task,
        policy=policy,
        device=torch.device("cpu"),
    )


def _sizes(config: RunConfig, *, vocab_size: int, sequence_length: int) -> EncoderDecoderConfig:
    fields = EncoderDecoderConfig.model_fields.keys() & type(config.policy).model_fields.keys()
    return EncoderDecoderConfig(
        vocab_size=vocab_size,
        sequence_length=sequence_length,
        **config.policy.model_dump(include=set(fields)),
    )


def _artefacts(step: PaperStep, folder: Path) -> list[str]:
    """Write the files that the task's options name; the options that name them."""
    options = {}
    if step.num_pieces is not None:
        vocabulary, frequencies = folder / "vocab.txt", folder / "frequencies.arrow"
        write_vocabulary(vocabulary, size=step.num_pieces)
        write_document_frequencies(frequencies)
        options = {"vocabulary": vocabulary, "document_frequencies": frequencies}
    if step.stage_one is not None:
        path = folder / "stage_one.safetensors"
        run = load_stage_one_config(_CONFIGS / f"{step.stage_one}.toml", step.stage_one_overrides)
        num_classes = step.num_things + step.num_stuff
        write_stage_one(path, run.network.sizes(run.task, num_classes))
        options = {"stage_one": path}
    return [f"task_options.{name}={path}" for name, path in options.items()]
