"""The runs that ``crash_equivalence`` can make: for each its data, its start and its config.

All are as small as they can be. What is rewarded costs a moment (``tests.faults.slow_scoring``),
so that processes are killed at work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.small_run import SILENT, small_config, small_start, small_tune, weights_of
from rewardtune.config.run_config import RunConfig
from rewardtune.datasets.digits.files import write_digits
from rewardtune.datasets.digits.scenes import SceneStyle
from rewardtune.run.local import pretrain

_MAX_TOKENS = 16
_STYLE = SceneStyle(size=32, min_digits=1, max_digits=3)
_SIZES = (
    *("input_size", "patch_size", "width", "num_heads", "mlp_width"),
    *("encoder_depth", "decoder_depth"),
)


@dataclass(frozen=True, slots=True)
class Start:
    """What is there before the first run."""

    checkpoint: Path
    """A policy file, or a folder of transformers'."""
    weights: str
    """Their digest, as ``bench.small_run.weights_of`` has it."""
    changes: Mapping[str, Any]
    """Of ``small_tune``'s config."""


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    num_steps: int
    lease_seconds: float
    prepare: Callable[[Path], Start]
    """Writes the data and makes the start, in an empty folder."""


def config_of(kind: Kind, folder: Path, name: str, start: Start, **changes: Any) -> RunConfig:
    """One run of a kind; two reward workers unless told otherwise."""
    cluster = {
        "lease_seconds": kind.lease_seconds,
        "metrics_port": 0,
        "num_reward_workers": 2,
        **changes.pop("cluster", {}),
    }
    return small_tune(
        folder,
        name,
        start=start.checkpoint,
        learner={"estimator": "leave_one_out", "num_steps": kind.num_steps},
        cluster=cluster,
        **start.changes,
        **changes,
    )


def _detection(folder: Path) -> Start:
    checkpoint = small_start(folder, num_steps=30)
    return Start(checkpoint, weights_of(checkpoint), {"task": "tests.faults.slow_detection"})


def _captioning(folder: Path) -> Start:
    options, _ = _captions(folder)
    config = small_config(
        folder,
        "pretrained",
        task="captioning",
        mode="pretrain",
        task_options=options,
        learner={"num_steps": 30},
    )
    checkpoint = pretrain(config, SILENT).policy_path
    changes = {"task": "tests.faults.slow_captioning", "task_options": options}
    return Start(checkpoint, weights_of(checkpoint), changes)


def _hugging_face(folder: Path) -> Start:
    """A model of transformers with random weights, in the folder that a user would have."""
    from rewardtune.policies.hugging_face.policy import HuggingFacePolicy

    options, pieces = _captions(folder)
    model = folder / "model"
    _write_model(model, pieces)
    changes = {
        "task": "tests.faults.slow_captioning",
        "task_options": options,
        # The model's own.
        "policy": dict.fromkeys(_SIZES),
    }
    loaded = HuggingFacePolicy.load(model, sequence_length=_MAX_TOKENS)
    return Start(model, weights_of(loaded), changes)


def _panoptic(folder: Path) -> Start:
    """Codes of a small stage I, which the reward workers decode; one image takes them long."""
    from rewardtune.datasets.coco.convert import convert_coco
    from rewardtune.stage_one.config import StageOneRunConfig
    from rewardtune.stage_one.training import train_stage_one

    _write_scenes(folder / "scenes")
    for split in ("train", "holdout"):
        coco = folder / "scenes" / "coco" / split
        convert_coco(
            images=coco / "images",
            panoptic=coco / "panoptic.json",
            output=folder / "digits" / split,
        )
    train = folder / "digits" / "train"
    network = {
        "input_size": 32,
        "patch_size": 8,
        "width": 32,
        "num_heads": 2,
        "mlp_width": 48,
        "encoder_depth": 1,
        "decoder_depth": 1,
        "code_length": 4,
        "dict_size": 16,
        "codeword_width": 8,
        "num_instances": 8,
    }
    training = {
        "batch_size": 8,
        "micro_batch": 4,
        "num_steps": 12,
        "optimizer": {"kind": "adafactor", "learning_rate": 1e-2},
        "dictionary_momentum": 0.9,
        "min_count": 1.0,
    }
    stage_one = StageOneRunConfig.model_validate(
        {
            "task": "panoptic",
            "mode": "stage_one",
            "data": {"train": train},
            "network": network,
            "training": training,
            "compute": {"threads": 1, "device": "cpu"},
            "operations": {"directory": folder / "stage_one", "progress": False},
        }
    )
    options = {"max_boxes": None, "stage_one": str(train_stage_one(stage_one, SILENT).path)}
    config = small_config(
        folder,
        "pretrained",
        task="panoptic",
        mode="pretrain",
        task_options=options,
        learner={"num_steps": 20},
    )
    checkpoint = pretrain(config, SILENT).policy_path
    changes = {"task": "tests.faults.slow_panoptic", "task_options": options}
    return Start(checkpoint, weights_of(checkpoint), changes)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("detection", num_steps=30, lease_seconds=3.0, prepare=_detection),
        Kind("captioning", num_steps=20, lease_seconds=3.0, prepare=_captioning),
        Kind("hugging_face", num_steps=20, lease_seconds=3.0, prepare=_hugging_face),
        # Half of what the longest decoding takes.
        Kind("panoptic", num_steps=20, lease_seconds=2.0, prepare=_panoptic),
    )
}


def _write_scenes(output: Path) -> None:
    write_digits(output, num_scenes={"train": 24, "holdout": 8, "validation": 8}, style=_STYLE)


def _captions(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Scenes with captions, their vocabulary and frequencies: the task's options, the pieces."""
    from rewardtune.datasets.shards.dataset import open_dataset
    from rewardtune.tasks.captioning.cider.document_frequencies import DocumentFrequencies
    from rewardtune.tasks.captioning.ptb.tokenizer import ptb_words
    from rewardtune.tasks.captioning.vocabulary import train_vocabulary, write_vocabulary

    _write_scenes(folder / "digits")
    train = open_dataset(folder / "digits" / "train")
    captions = [train.example(index).captions for index in range(len(train))]
    pieces = train_vocabulary([c for each in captions for c in each], size=120)
    write_vocabulary(pieces, folder / "vocab.txt")
    frequencies = folder / "frequencies.arrow"
    words = [[ptb_words(caption) for caption in each] for each in captions]
    DocumentFrequencies.of_words(words).write(frequencies)
    options = {
        "max_boxes": None,
        "vocabulary": str(folder / "vocab.txt"),
        "document_frequencies": str(frequencies),
        "max_tokens": _MAX_TOKENS,
    }
    return options, pieces


def _write_model(folder: Path, pieces: list[str]) -> None:
    import torch
    from transformers import (
        BertConfig,
        BertLMHeadModel,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTModel,
    )

    from rewardtune.policies.hugging_face.config import quietly

    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 48,
    }
    torch.manual_seed(0)
    encoder = ViTModel(ViTConfig(image_size=32, patch_size=8, **sizes))
    decoder = BertLMHeadModel(
        BertConfig(
            vocab_size=len(pieces),
            max_position_embeddings=2 * _MAX_TOKENS,
            is_decoder=True,
            add_cross_attention=True,
            **sizes,
        )
    )
    model: Any = VisionEncoderDecoderModel(encoder=encoder, decoder=decoder)
    for config in (model.config, model.generation_config):
        config.decoder_start_token_id = pieces.index("[CLS]")
        config.eos_token_id = pieces.index("[SEP]")
        config.pad_token_id = pieces.index("[PAD]")
    with quietly():
        model.save_pretrained(folder)
